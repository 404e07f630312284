"""What a user can put right about their data."""


class DataError(ValueError):
    """One line that names the file, the key or the value, and the way out."""
