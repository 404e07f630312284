"""What ends a run: a user's mistake, or a training that went wrong."""


class ConfigError(ValueError):
    """One line that names the key, its value and the way out. Exit code 2."""


class RunFailed(RuntimeError):
    """A training that cannot go on, such as a NaN loss. Exit code 1."""
