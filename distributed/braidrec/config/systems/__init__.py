"""Settings of the named systems, one a file."""
