"""Other SASRec implementations from PyPI, each in its own virtual environment."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent.parent / ".venv-peers"
TORCH = "torch==2.13.0"
# The latest releases in November 2026, each with the versions of other packages that it needs.
PEERS = {
    "recbole": ["recbole==1.2.1", "numpy<2", "pandas<3"],
    "rectools": ["rectools[torch]==0.19.0"],
    "freerec": ["freerec==0.9.7", "torchdata<0.10", "scikit-learn"],
}
MODELS = {
    "recbole": "FFN 64→256, BPR, one target per sample",
    "rectools": "FFN 64→64, BCE",
    "freerec": "FFN 64→64, BCE, model written here",
}


def python(peer: str) -> Path:
    """The Python interpreter of a peer's environment."""
    return ENVIRONMENTS / peer / "bin" / "python"


def installed() -> list[str]:
    """The names of the installed peers."""
    return [peer for peer in PEERS if (ENVIRONMENTS / peer / "installed").exists()]
