"""What is minimised. Every loss gives one value a row of the batch; the loop weights, sums and normalises them."""
