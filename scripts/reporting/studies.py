"""Which runs belong together, and what their experiment says of itself.

A study is one (experiment, model, dataset); a variant is a study's runs that differ in their seed
alone: an optimizer, and the values of what the study sweeps over. An experiment's file says under
``study`` what its tables are (configs/experiment). Without one, a study gets every table that
applies to it.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from scripts.records.errors import UserError
from scripts.reporting.note import ROWS

if TYPE_CHECKING:
    from scripts.reporting.collect import Results

STUDY = ["experiment", "model", "dataset"]
RUN = ["dataset", "model", "experiment", "optimizer", "seed"]
VARIANT = ["optimizer", "swept"]
EXPERIMENTS = Path(__file__).resolve().parents[2] / "configs" / "experiment"


@dataclass(frozen=True)
class Declaration:
    """What an experiment's file says of its study."""

    beside_note: bool = False  # its figures stand beside the note's
    beside_published: bool = False  # its runs of Adam stand beside published figures
    departs_from: str | None = None  # the experiment from which it departs in one setting
    stands_for: dict[str, str] | None = None  # of departures: their optimizer, the note's variant
    steps: dict[str, str] | None = None  # optimizers, each with what it changes of the one before
    baseline: str = "lion"  # variants are compared with this one, seed by seed
    baseline_from: str | None = None  # the experiment that holds it, if not this one
    optimizers: tuple[str, ...] = ()  # that the experiment trains, from its sweep


@dataclass
class Study:
    """The runs of a study, and all that its tables and figures are made from."""

    experiment: str
    model: str
    dataset: str
    runs: pd.DataFrame
    curves: pd.DataFrame  # VARIANT, seed, epoch, train/loss and valid/NDCG@10
    paired: pd.DataFrame
    diagnostics: pd.DataFrame
    baseline: pd.DataFrame  # runs of the variant that others are compared with; may be empty
    baseline_curves: pd.DataFrame
    declared: Declaration

    @property
    def name(self) -> str:
        return f"{self.experiment}-{self.model}-{self.dataset}"

    @cached_property
    def swept(self) -> list[str]:
        """Columns of runs that a study sweeps over beside optimizers and seeds."""
        candidates = ["epochs", "lr", "weight_decay", *(str(c) for c in self.runs if "." in str(c))]
        by_optimizer = self.runs.groupby("optimizer")
        return [c for c in candidates if (by_optimizer[c].nunique(dropna=False) > 1).any()]

    @cached_property
    def variants(self) -> list[tuple[str, str]]:
        """(optimizer, swept) of each variant: the note's in its order, then the others."""
        found = self.runs.drop_duplicates(VARIANT)
        known = list(dict.fromkeys([*ROWS, *self.declared.optimizers, *found["optimizer"]]))
        found = found.assign(place=found["optimizer"].map(known.index))
        found = found.sort_values(["place", *self.swept, "swept"], kind="stable")
        return list(found[VARIANT].itertuples(index=False, name=None))

    @property
    def missing(self) -> list[str]:
        """Optimizers that the experiment trains and that have no run."""
        return [o for o in self.declared.optimizers if o not in set(self.runs["optimizer"])]

    def of(self, optimizer: str, swept: str = "") -> pd.DataFrame:
        """A variant's runs."""
        return variant(self.runs, optimizer, swept)

    def fewest_seeds(self) -> int:
        """The number of runs of the variant that has fewest."""
        return int(self.runs.groupby(VARIANT)["seed"].nunique().min())


def studies(results: "Results") -> list[Study]:
    """All studies of a results folder.

    Raises:
        UserError: one run has two records, or an experiment's ``study`` is not understood.
    """
    curves = results.curves.merge(results.runs[["record", *STUDY, *VARIANT, "seed"]], on="record")
    found = []
    for key, runs in results.runs.groupby(STUDY):
        keys = tuple(map(str, key))
        experiment, model, dataset = keys
        study = Study(
            experiment=experiment,
            model=model,
            dataset=dataset,
            runs=runs,
            curves=of_study(curves, keys),
            paired=of_study(results.paired, keys),
            diagnostics=of_study(results.diagnostics, keys),
            baseline=of_study(results.runs, baseline_study(keys)),
            baseline_curves=of_study(curves, baseline_study(keys)),
            declared=declared(experiment),
        )
        twice = runs[runs.duplicated([*VARIANT, "seed"], keep=False)]
        if len(twice):
            records = ", ".join(twice["record"])
            raise UserError(f"{study.name}: one run, two records ({records}); delete one")
        found.append(study)
    return found


def of_study(frame: pd.DataFrame, keys: tuple[str, ...]) -> pd.DataFrame:
    """Lines of one (experiment, model, dataset)."""
    return frame[(frame[STUDY] == list(keys)).all(axis=1)]


def variant(frame: pd.DataFrame, optimizer: str, swept: str = "") -> pd.DataFrame:
    """Lines of one variant."""
    return frame[(frame["optimizer"] == optimizer) & (frame["swept"] == swept)]


def baseline_study(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The study that holds the baseline of a study."""
    experiment, model, dataset = keys
    return declared(experiment).baseline_from or experiment, model, dataset


def baseline_of(frame: pd.DataFrame, optimizer: str, swept: str) -> pd.DataFrame:
    """Lines of the baseline at the same values of what is swept; else those that sweep nothing."""
    same = variant(frame, optimizer, swept)
    return same if len(same) else variant(frame, optimizer)


@cache
def declared(experiment: str) -> Declaration:
    """What configs/experiment says of a study; nothing if it has no such file.

    Raises:
        UserError: the file says something that is not understood.
    """
    path = EXPERIMENTS / f"{experiment}.yaml"
    if not path.is_file():
        return Declaration()
    whole: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    swept = whole.get("hydra", {}).get("sweeper", {}).get("params", {}).get("optimizer", "")
    optimizers = tuple(o.strip() for o in str(swept).split(",") if o.strip())
    try:
        return Declaration(optimizers=optimizers, **(whole.get("study") or {}))
    except TypeError as error:
        reason = str(error).removeprefix("Declaration.__init__() ")
        raise UserError(f"{path}: study: {reason}") from None
