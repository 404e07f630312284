"""Other SASRec implementations from PyPI, each in an environment of its own."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent.parent / ".venv-peers"
TORCH = "torch==2.13.0"
# Releases of one day; what stands behind a release are the versions it needs to import at all.
PEERS = {
    "recbole": ["recbole==1.2.1", "numpy<2", "pandas<3"],
    "rectools": ["rectools[torch]==0.19.0"],
    "freerec": ["freerec==0.9.7", "torchdata<0.10", "scikit-learn"],
}
MODELS = {
    "recbole": "FFN 64→256, BPR, one target a sample",
    "rectools": "FFN 64→64, BCE",
    "freerec": "FFN 64→64, BCE, model written here",
}


def python(peer: str) -> Path:
    return ENVIRONMENTS / peer / "bin" / "python"


def installed() -> list[str]:
    return [peer for peer in PEERS if (ENVIRONMENTS / peer / "installed").exists()]
