"""The error for data that a user can correct."""


class DataError(ValueError):
    """A user's mistake: one line that names the file, key or value and how to correct it."""
