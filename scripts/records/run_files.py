"""The paths of a run's files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.records.files import remove_partials


def weights_of(record: Path) -> Path:
    """The file of the weights that belong to a record."""
    return record.with_suffix(".best.pt")


@dataclass(frozen=True, order=True)
class RunFiles:
    """The paths of a run's files, which exist at different times.

    Args:
        root: the folder of all results.
        folder: DATASET/OPTIMIZER, below root/runs and root/checkpoints.
        name: the file name of the record, without its ending.
    """

    root: Path
    folder: str
    name: str

    @property
    def record(self) -> Path:
        """The record. It exists after the run has ended."""
        return self.root / "runs" / self.folder / f"{self.name}.json"

    @property
    def weights(self) -> Path:
        """The weights of the best epoch, if the run keeps them. They are beside the record."""
        return weights_of(self.record)

    @property
    def checkpoint(self) -> Path:
        """The training's state. It exists from the first evaluation to the end."""
        return self._beside("pt")

    @property
    def lock(self) -> Path:
        """The lock file. A process holds its lock while it trains the run."""
        return self._beside("lock")

    @property
    def status(self) -> Path:
        """The run's progress, or why it failed. It exists until the run is finished."""
        return self._beside("status.json")

    @property
    def log(self) -> Path:
        """The log of the training. It exists until the run is finished."""
        return self._beside("log")

    def remove_partials(self) -> None:
        """Remove temporary files of killed writers. The caller must hold the lock."""
        for path in (self.record, self.weights, self.checkpoint, self.status):
            remove_partials(path)

    def clear(self) -> None:
        """Remove what a finished run no longer needs. The caller must hold the lock."""
        for path in (self.checkpoint, self.status, self.log):
            path.unlink(missing_ok=True)

    def _beside(self, ending: str) -> Path:
        return self.root / "checkpoints" / self.folder / f"{self.name}.{ending}"


def find_runs(root: Path) -> Iterator[RunFiles]:
    """The runs that have a record, a checkpoint or a status below ``root``, in order."""
    runs = set()
    for top, ending in (("runs", ".json"), ("checkpoints", ".pt"), ("checkpoints", ".status.json")):
        for path in (root / top).glob(f"*/*/*{ending}"):
            folder = path.parent.relative_to(root / top).as_posix()
            runs.add(RunFiles(root, folder, path.name.removesuffix(ending)))
    yield from sorted(runs)
