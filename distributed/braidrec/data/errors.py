"""The error that every part of this package raises for bad data."""


class DatasetError(ValueError):
    """Data that cannot be used. The message names the file, the row or key, the value seen and the mend."""
