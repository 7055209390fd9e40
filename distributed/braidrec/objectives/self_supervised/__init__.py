"""What is learnt without interactions as labels. One value a row, as for the supervised losses."""
