"""Other projects have the import name simba; a training must use the one of this checkout."""

from importlib.util import find_spec
from pathlib import Path

from scripts.records.errors import UserError

OWN = Path(__file__).resolve().parents[2] / "simba" / "__init__.py"


def require_checkout_simba() -> None:
    """Check where ``import simba`` leads, without importing it.

    Raises:
        UserError: it would import another project, or another copy of this one.
    """
    spec = find_spec("simba")
    origin = spec.origin if spec else None
    if origin is None or Path(origin).resolve() != OWN:
        raise UserError(
            f"`import simba` gives {origin or 'no package'}, not {OWN}: another project of this "
            "name comes first; uninstall it (pip uninstall simba), or use the environment of make"
        )
