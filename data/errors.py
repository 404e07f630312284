"""The error for a data file or a key of ``data`` that the user can correct."""


class DataError(ValueError):
    """An invalid file or key.

    The message is one line that names the file, key or value and says how to correct it.
    """
