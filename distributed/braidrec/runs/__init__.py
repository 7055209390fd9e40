"""What can be done with a finished run: evaluate it, recommend from it, export its vectors."""
