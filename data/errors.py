"""The error for data that a user can correct."""


class DataError(ValueError):
    """An error that a user can correct.

    The message is one line that names the file, key or value and says how to correct it.
    """
