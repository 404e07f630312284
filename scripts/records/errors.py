"""What ends a run: a user's mistake, or a training that went wrong."""


class UserError(ValueError):
    """A mistake that its user can mend: one line that names the key or file and the way out.

    A command ends with exit code 2.
    """


class RunFailed(RuntimeError):
    """A training that cannot go on, for example because its loss is NaN. Exit code 1."""
