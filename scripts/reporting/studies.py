"""Group runs into studies and variants, and read what an experiment's file declares.

A study is the runs of one (experiment, model, dataset). A variant is one optimizer with one value
of each swept key; its runs in a study differ only in their seed. An experiment's file in
configs/experiment declares its tables under ``study``. Without this key, a study gets every table
that applies to it.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import yaml

from scripts.records.errors import UserError
from scripts.reporting.note import NOTE_VALUES

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from scripts.reporting.collect import Results

STUDY = ["experiment", "model", "dataset"]
RUN = ["dataset", "model", "experiment", "optimizer", "seed"]
VARIANT = ["optimizer", "swept"]
RESULTS = {  # the columns of runs.csv that are not keys of the config
    *(*RUN, "swept", "overrides", "epochs", "best_epoch", "record", "commit", "setting_hash"),
    *("targets_per_second", "eval_seconds", "peak_rss_mib", "state_bytes_per_param"),
}
IN_LABELS = {"corrupt", "gradients", "workers"}  # swept keys that labels show, not columns
SWEPT_PARTS = re.compile(r", (?=[^\W\d][\w.]* )")  # between two keys in a text ``swept``
NOT_A_LIST = set("([{")  # a sweep with one of these is no list of plain values, but range(0,5)
EXPERIMENTS = Path(__file__).resolve().parents[2] / "configs" / "experiment"


@dataclass(frozen=True)
class Declaration:
    """The key ``study`` of an experiment's file."""

    compares_with_note: bool = False  # compare its results with the note's
    compares_with_published: bool = False  # compare its runs of Adam with published results
    answers: bool = False  # the table ``answer`` shows its runs
    tuning: bool = False  # its runs choose rates and decays
    departs_from: str | None = None  # the experiment that the table ``settings`` compares it with
    stands_for: dict[str, str] | None = None  # maps its optimizers to the note's variants
    steps: dict[str, str] | None = None  # maps optimizers to their change against the one before
    removes: dict[str, str] | None = None  # maps steps to the weakness that each removes
    baseline: str = "lion"  # the optimizer that variants are compared with, seed by seed
    baseline_from: str | None = None  # the experiment with the baseline's runs; None: this one
    rules: dict[str, Any] | None = None  # for interpolations in the file itself; see ladder.yaml
    optimizers: tuple[str, ...] = ()  # the optimizers of the experiment's sweep

    @property
    def shown_elsewhere(self) -> bool:
        """Whether the table ``published`` or ``settings`` shows its runs, and no other does."""
        return self.compares_with_published or self.departs_from is not None


@dataclass
class Study:
    """The runs of a study and all other data of its tables and figures."""

    experiment: str
    model: str
    dataset: str
    runs: pd.DataFrame
    curves: pd.DataFrame  # columns VARIANT, seed, epoch, train/loss and valid/NDCG@10
    paired: pd.DataFrame
    gains: pd.DataFrame
    diagnostics: pd.DataFrame
    baseline: pd.DataFrame  # runs of the study that holds the baseline; may be empty
    baseline_curves: pd.DataFrame
    declared: Declaration

    @property
    def name(self) -> str:
        return f"{self.experiment}-{self.model}-{self.dataset}"

    @cached_property
    def short_names(self) -> dict[str, str]:
        """The short name of each column of ``runs`` that the study sweeps over."""
        return short_names(swept_columns(self.runs))

    @property
    def swept(self) -> list[str]:
        """The columns of ``runs`` that the study sweeps over, without those of IN_LABELS."""
        return [column for column in self.short_names if column not in IN_LABELS]

    def in_label(self, swept: str) -> str:
        """The part of a text ``swept`` whose keys are in IN_LABELS, not in ``self.swept``."""
        return without(swept, {self.short_names[column] for column in self.swept})

    @property
    def grid_key(self) -> str | None:
        """The only key that the study sweeps over; None if there are none or several."""
        if len(self.swept) != 1 or any(self.in_label(text) for text in self.runs["swept"]):
            return None
        values = self.runs[self.swept[0]]
        return None if (values.isna() | (values == "")).any() else self.swept[0]

    @cached_property
    def variants(self) -> list[tuple[str, str]]:
        """(optimizer, swept) of each variant: the note's variants in its order, then the others."""
        distinct = self.runs.drop_duplicates(VARIANT)
        known = list(
            dict.fromkeys([*NOTE_VALUES, *self.declared.optimizers, *distinct["optimizer"]])
        )
        distinct = distinct.assign(position=distinct["optimizer"].map(known.index))
        distinct = distinct.sort_values(["position", *self.swept, "swept"], kind="stable")
        return list(distinct[VARIANT].itertuples(index=False, name=None))

    @property
    def missing_optimizers(self) -> list[str]:
        """The optimizers of the experiment's sweep that have no run."""
        return [o for o in self.declared.optimizers if o not in set(self.runs["optimizer"])]

    @property
    def missing_runs_text(self) -> str:
        """The missing runs as text: optimizers without a run, and missing seeds of variants."""
        seeds = set(self.runs["seed"])
        without: dict[str, list[str]] = {}  # variants by the seeds that they lack
        for optimizer, swept in self.variants:
            lacks = sorted(seeds - set(self.of(optimizer, swept)["seed"]))
            if lacks:
                name = ", ".join(filter(None, (optimizer, swept)))
                without.setdefault(", ".join(map(str, lacks)), []).append(name)
        missing = [*self.missing_optimizers]
        for lacked, names in without.items():
            if len(names) > 3:
                names = [f"{len(names)} variants, such as {names[0]},"]
            missing += [f"{name} with seed {lacked}" for name in names]
        return "; ".join(missing)

    def of(self, optimizer: str, swept: str = "") -> pd.DataFrame:
        """The runs of a variant."""
        return self._runs_by_variant.get((optimizer, swept), self.runs.iloc[:0])

    @cached_property
    def _runs_by_variant(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.runs.groupby(VARIANT)))

    @property
    def shown_runs(self) -> pd.DataFrame:
        """``runs``, and the baseline's runs if they belong to another experiment."""
        return self._with_baseline(self.runs, self.baseline)

    @property
    def shown_curves(self) -> pd.DataFrame:
        """``curves``, and the baseline's curves if they belong to another experiment."""
        return self._with_baseline(self.curves, self.baseline_curves)

    def _with_baseline(self, rows: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
        if self.declared.baseline_from is None:
            return rows
        return pd.concat([rows, baseline[baseline["optimizer"] == self.declared.baseline]])

    def fewest_seeds(self) -> int:
        """The smallest number of seeds of a variant."""
        return int(self.runs.groupby(VARIANT)["seed"].nunique().min())


def key_columns(runs: pd.DataFrame) -> list[str]:
    """The columns of runs.csv that are keys of the config: those that some study sweeps over."""
    return [c for c in map(str, runs) if c not in RESULTS and "/" not in c]


def swept_columns(runs: pd.DataFrame) -> list[str]:
    """The key columns that a study's runs sweep over."""
    return differing(runs[key_columns(runs)], runs["optimizer"])


def differing(settings: pd.DataFrame, optimizers: pd.Series) -> list[str]:
    """The columns of ``settings`` that a study sweeps over.

    Its runs differ in them; in a hyperparameter of optimizers, the runs of one optimizer do.

    Args:
        settings: one row per run of the study, one column per key of the config.
        optimizers: the optimizer of each run.
    """
    found = []
    for column in map(str, settings):
        values = settings[column].map(repr)
        own = column in ("lr", "weight_decay") or column.startswith("optimizer.")
        count = values.groupby(optimizers).nunique().max() if own else values.nunique()
        found += [column] if count > 1 else []
    return found


def short_names(columns: Iterable[str]) -> dict[str, str]:
    """Short names of columns: the part after the last dot, or the whole name if two share it."""
    last = {column: column.split(".")[-1] for column in columns}
    count = Counter(last.values())
    return {column: name if count[name] == 1 else column for column, name in last.items()}


def without(swept: str, names: Container[str]) -> str:
    """A text ``swept`` without the values of some keys, which are given by their short names."""
    return ", ".join(part for name, part in parts_of(swept).items() if name not in names)


def parts_of(swept: str) -> dict[str, str]:
    """The parts of a text ``swept``, such as ``lr 3e-4``, by the short name of their key."""
    return {part.split(" ")[0]: part for part in SWEPT_PARTS.split(swept)}


def studies(results: "Results") -> list[Study]:
    """All studies of a results folder.

    Raises:
        UserError: a run has two records, or the ``study`` of an experiment's file is invalid.
    """
    curves = results.curves.merge(results.runs[["record", *STUDY, *VARIANT, "seed"]], on="record")
    all_studies = []
    for key, runs in results.runs.groupby(STUDY):
        keys = tuple(map(str, key))
        experiment, model, dataset = keys
        one_setting = bool((runs["swept"] == "").all())
        study = Study(
            experiment=experiment,
            model=model,
            dataset=dataset,
            runs=runs,
            curves=of_study(curves, keys),
            paired=of_study(results.paired, keys),
            gains=of_study(results.gains, keys),
            # diagnostics.csv has no columns of swept keys
            diagnostics=of_study(results.diagnostics, keys).iloc[: None if one_setting else 0],
            baseline=of_study(results.runs, baseline_study(keys)),
            baseline_curves=of_study(curves, baseline_study(keys)),
            declared=declared(experiment),
        )
        twice = runs[runs.duplicated([*VARIANT, "seed"], keep=False)]
        if len(twice):
            records = ", ".join(twice["record"])
            raise UserError(f"{study.name}: one run, two records ({records}); delete one")
        all_studies.append(study)
    return all_studies


def of_study(frame: pd.DataFrame, keys: tuple[str, ...]) -> pd.DataFrame:
    """The rows of a frame that belong to ``keys``, one (experiment, model, dataset)."""
    return frame[(frame[STUDY] == list(keys)).all(axis=1)]


def variant(frame: pd.DataFrame, optimizer: str, swept: str = "") -> pd.DataFrame:
    """The rows of a frame that belong to a variant."""
    return frame[(frame["optimizer"] == optimizer) & (frame["swept"] == swept)]


def baseline_study(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The (experiment, model, dataset) that holds the baseline of a study."""
    experiment, model, dataset = keys
    return declared(experiment).baseline_from or experiment, model, dataset


def baseline_of(frame: pd.DataFrame, optimizer: str, swept: str) -> pd.DataFrame:
    """The baseline's rows that a variant is compared with; there may be none.

    Of each key that the baseline is swept over, they have the variant's value.
    """
    rows = frame[frame["optimizer"] == optimizer]
    names = {name for text in rows["swept"].unique() for name in parts_of(text)}
    return rows[rows["swept"] == without(swept, parts_of(swept).keys() - names)]


@cache
def experiment_config(experiment: str) -> "DictConfig":
    """An experiment's file alone, read as Hydra does, without its ``defaults``; empty without one.

    Raises:
        UserError: the file has no keys and values.
    """
    from omegaconf import DictConfig, OmegaConf  # slow to import

    path = EXPERIMENTS / f"{experiment}.yaml"
    if not path.is_file():
        return OmegaConf.create()
    try:
        content = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, DictConfig):
        raise UserError(f"{path}: must have keys and values, got a list")
    return content


@cache
def experiment_file(experiment: str) -> dict[str, Any]:
    """The content of ``experiment_config`` as plain values, without interpolation.

    Raises:
        UserError: the file has no keys and values.
    """
    from omegaconf import OmegaConf

    return cast(dict[str, Any], OmegaConf.to_container(experiment_config(experiment)))


def sweeper_params(experiment: str) -> dict[str, Any]:
    """The lists that an experiment's own file sweeps over, by key: ``hydra.sweeper.params``.

    Raises:
        UserError: the file is invalid.
    """
    section: Any = experiment_file(experiment)
    for key in ("hydra", "sweeper", "params"):
        section = section.get(key) or {}
        if not isinstance(section, dict):
            path = EXPERIMENTS / f"{experiment}.yaml"
            raise UserError(f"{path}: {key} must have keys and values, got {section!r}")
    return section


@cache
def declared(experiment: str) -> Declaration:
    """The declaration of an experiment's file; the default one if there is no such file.

    Only the file itself counts, not the files that it names in ``defaults``.

    Raises:
        UserError: the file's ``study`` has an unknown key or an invalid value.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    swept = str(sweeper_params(experiment).get("optimizer", ""))
    listed = not NOT_A_LIST & set(swept)
    optimizers = tuple(o.strip() for o in swept.split(",") if o.strip()) if listed else ()
    path = EXPERIMENTS / f"{experiment}.yaml"
    try:
        section = experiment_config(experiment).get("study") or OmegaConf.create()
        if not isinstance(section, DictConfig):
            raise UserError(f"{path}: study must have keys and values, got {section!r}")
        plain = OmegaConf.to_container(section, resolve=True)
        merged = OmegaConf.merge(OmegaConf.structured(Declaration), plain)
        declaration = cast(Declaration, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        key = ".".join(filter(None, ("study", error.full_key)))
        raise UserError(f"{path}: {key}: {str(error).splitlines()[0]}") from None
    if declaration.steps is not None and len(declaration.steps) < 2:
        raise UserError(f"{path}: study.steps: two steps or more are needed")
    return replace(declaration, optimizers=optimizers)
