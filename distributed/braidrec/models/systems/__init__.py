"""Named systems with parts of their own, one a file; those that are a choice of common parts are presets."""
