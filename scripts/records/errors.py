"""The errors that end a command: a user's mistake, or a failed training."""


class UserError(ValueError):
    """A user's mistake: one line that names the key or file and how to correct it.

    The command prints the line and ends with exit code 2.
    """


class RunFailed(RuntimeError):
    """A training that cannot continue, for example because its loss is NaN. Exit code 1."""
