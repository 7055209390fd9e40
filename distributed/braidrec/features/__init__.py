"""Vectors of items and users: where they come from, and how training reads them."""
