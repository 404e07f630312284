"""The numbers in the report's sentences."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from scripts.reporting.cells import MISSING, OPTIMIZER, bracketed, seeds, signed
from scripts.reporting.corrupted import kinds
from scripts.reporting.finalists import BestRate, best_of_rates, note_study_and_finalists
from scripts.reporting.note import METRICS, NOTE_VALUES, VERDICTS
from scripts.reporting.statistics import differences, t_interval
from scripts.reporting.studies import Study, baseline_of, variant
from scripts.reporting.style import label_of
from scripts.reporting.tables import (
    Step,
    declared_steps,
    equivalence_margin,
    group_name,
    groups_of,
    last_diagnosed,
    metrics_with_note,
    order,
    settings_table,
    share_with_interval,
)

LARGE = 10  # %: a step's share of the gap that is worth a sentence


class VersusBaseline(NamedTuple):
    """A variant's mean NDCG@10 on test and the baseline's, over the seeds that both have."""

    optimizer: str
    label: str
    ours: float
    theirs: float
    seeds: int
    interval: tuple[float, float] | None
    bytes: float
    within: float | None  # see ``equivalence_margin``
    loss: tuple[float, float] | None  # the interval of the difference of the lowest training loss

    @property
    def percent(self) -> float:
        """Ours in % of theirs."""
        return 100 * self.ours / self.theirs

    @property
    def has_interval(self) -> bool:
        """Whether there are seeds enough for an interval."""
        return self.interval is not None

    @property
    def difference_in_percent(self) -> str:
        """The difference in % of theirs, such as ``12% below``."""
        off = self.percent - 100
        return f"{abs(off):.0f}% {'below' if off < 0 else 'above'}"

    @property
    def significance(self) -> str:
        """Whether the difference is significant, in words."""
        if self.interval is None:
            return f"{seeds(self.seeds)}: too few for a significance test"
        low, high = self.interval
        return (
            f"{significant(self.interval)}: over {seeds(self.seeds)} the difference is "
            f"{signed((low + high) / 2)} {bracketed(low, high)}"
        )

    @property
    def significance_in_short(self) -> str:
        """``significance`` without the difference."""
        if self.interval is None:
            return f"{seeds(self.seeds)}: too few to tell"
        return f"{significant(self.interval)}, {seeds(self.seeds)}"

    @property
    def loss_in_words(self) -> str:
        """How the training loss differs; nothing for too few seeds."""
        if self.loss is None:
            return ""
        low, high = self.loss
        clear = significant(self.loss)
        return (
            f"{'higher' if low + high > 0 else 'lower'} by {abs(low + high) / 2:.4f} "
            f"{bracketed(low, high)}, which is {clear}"
        )


def significant(interval: tuple[float, float]) -> str:
    """Whether an interval of a difference leaves out 0, in words."""
    low, high = interval
    return "significant" if low > 0 or high < 0 else "not significant"


def versus_baseline(study: Study, optimizer: str) -> VersusBaseline:
    """A variant compared with its study's baseline."""
    theirs = baseline_of(study.baseline, study.declared.baseline, "")
    ours = study.of(optimizer)
    column = METRICS["NDCG@10"]
    d = differences(ours, theirs, column)
    both = ours.merge(theirs, on="seed")
    return VersusBaseline(
        optimizer=optimizer,
        label=label_of(optimizer),
        ours=float(both[f"{column}_x"].mean()),
        theirs=float(both[f"{column}_y"].mean()),
        seeds=len(d),
        interval=t_interval(d),
        bytes=float(ours["state_bytes_per_param"].iloc[0]),
        within=equivalence_margin(ours, theirs),
        loss=t_interval(differences(ours, theirs, METRICS["Loss"])),
    )


def with_less_state(studies: Sequence[Study]) -> list[VersusBaseline]:
    """The variants in the note's setting that store less than its baseline, the best first.

    They are those of the studies that take their baseline from the note's setting.
    """
    base, finalists = note_study_and_finalists(studies)
    if base is None or base.of(base.declared.baseline).empty:
        return []
    most = float(base.of(base.declared.baseline)["state_bytes_per_param"].iloc[0])
    compared = [b for study in finalists for b in _all_versus_baseline(study)]
    return sorted((b for b in compared if b.bytes < most), key=lambda b: -b.percent)


def with_as_much_state(study: Study) -> list[VersusBaseline]:
    """A study's variants that keep as much as its baseline or more, the best first."""
    if study.of(study.declared.baseline).empty:
        return []
    most = float(study.of(study.declared.baseline)["state_bytes_per_param"].iloc[0])
    return sorted(
        (b for b in _all_versus_baseline(study) if b.bytes >= most), key=lambda b: -b.percent
    )


def _all_versus_baseline(study: Study) -> list[VersusBaseline]:
    compared = [versus_baseline(study, o) for o, swept in study.variants if not swept]
    return [b for b in compared if b.seeds and b.optimizer != study.declared.baseline]


def verdicts(study: Study) -> dict[str, list[str]]:
    """The note's variants with each verdict, by their labels."""
    frame = metrics_with_note(study).frame
    given = frame["verdict"].str.partition(" (")[0]
    return {verdict: frame.loc[given == verdict, OPTIMIZER].tolist() for verdict in VERDICTS}


def largest_steps(study: Study) -> list[Step]:
    """The steps that close 10% of the gap or more, in loss or in NDCG@10, in their order."""
    steps = declared_steps(study)
    return [s for s in steps if round(100 * max(s.of_loss or 0.0, s.of_ndcg or 0.0)) >= LARGE]


def weaknesses(study: Study) -> list[str]:
    """The weaknesses of the first variant that the largest steps remove."""
    removes = study.declared.removes or {}
    return [removes[s.optimizer] for s in largest_steps(study) if s.optimizer in removes]


def worst_variant(study: Study) -> str:
    """The note's variant that is last by our mean NDCG@10 on test."""
    ours = study.runs[study.runs["optimizer"].isin(NOTE_VALUES)]
    return label_of(str(ours.groupby("optimizer")[METRICS["NDCG@10"]].mean().idxmin()))


def worst_in_note() -> str:
    """The variant that is last by the note's NDCG@10."""
    return label_of(min(NOTE_VALUES, key=lambda optimizer: NOTE_VALUES[optimizer].ndcg))


class ByteDivision(NamedTuple):
    """The best way to divide a byte, by NDCG@10 on validation."""

    swept: str
    valid: float
    lion: float  # the baseline's, over the same seeds


def best_byte(study: Study) -> ByteDivision | None:
    """The variant with one byte of a study that has the best NDCG@10 on validation.

    None if there is no such run, or none of the baseline with the same seed.
    """
    column = "valid/NDCG@10"
    one = study.runs[study.runs["state_bytes_per_param"] == 1]
    if one.empty:
        return None
    best = one.sort_values(column, kind="stable").iloc[-1]
    baseline = variant(study.baseline, study.declared.baseline)
    same = baseline[baseline["seed"] == best["seed"]]
    if same.empty:
        return None
    return ByteDivision(str(best["swept"]), float(best[column]), float(same[column].iloc[0]))


class Agreement(NamedTuple):
    """The order of the note's variants in one study, compared with the note's order."""

    dataset: str
    seeds: str
    tau: str
    p: str

    @property
    def in_words(self) -> str:
        """Whether the orders agree more than by chance."""
        if float(self.tau) > 0 and float(self.p) < 0.05:
            return "the orders agree by more than chance"
        return "the agreement may be chance"


def agreements(studies: Sequence[Study]) -> list[Agreement]:
    """Whether the order of the note's variants is the note's on other datasets."""
    base, table = note_study_and_finalists(studies)[0], order(studies)
    if base is None or table is None:
        return []
    frame = table.frame[table.frame["dataset"] != base.dataset]
    columns = ["dataset", "seeds", "Kendall's tau", "p"]
    return [Agreement(*line) for line in frame[columns].itertuples(index=False)]


class ReproducedBy(NamedTuple):
    """How many of the note's results a setting reproduces."""

    setting: str
    reproduced: int
    of: int
    n: str


def reproduced(studies: Sequence[Study]) -> list[ReproducedBy]:
    """The settings with all three metrics, the note's first and then the best."""
    table = settings_table(studies)
    if table is None:
        return []
    settings = []
    frame = table.frame[table.frame["reproduced"] != ""]
    for name, rows in frame.groupby("setting", sort=False):
        if len(rows) == len(METRICS):
            counts = rows["reproduced"].str.split(" of ", expand=True).astype(int).sum()
            count, of = int(counts[0]), int(counts[1])
            settings.append(ReproducedBy(str(name), count, of, rows["n"].iloc[0]))
    return settings[:1] + sorted(settings[1:], key=lambda e: -e.reproduced)


class Rarest(NamedTuple):
    """What a variant changes for the users whose test item is rarest in training."""

    label: str
    group: str
    share: str
    significant: bool  # the interval excludes 0


def rarest(studies: Sequence[Study]) -> list[Rarest]:
    """The variants of several seeds in the note's setting, those that lose most first."""
    by_difference = []
    for study in note_study_and_finalists(studies)[1]:
        gains = study.gains[(study.gains["by"] == "popularity") & (study.gains["seeds"] > 1)]
        for optimizer, swept in study.variants:
            groups = groups_of(variant(gains, optimizer, swept))
            if groups:
                rare = groups[0]
                words = group_name(rare), share_with_interval(rare)
                excludes_0 = rare.low > 0 or rare.high < 0
                result = Rarest(label_of(optimizer, swept), *words, excludes_0)
                by_difference.append((rare.difference, result))
    return [result for _, result in sorted(by_difference, key=lambda pair: pair[0])]


def p_over_users(cells: pd.DataFrame, label: str) -> str:
    """The p of the t-test over users in a variant's row of a table ``paired``; MISSING without."""
    found = cells.loc[cells[OPTIMIZER] == label, "p, t-test"]
    return str(found.iloc[0]) if len(found) else MISSING


def best_rates(studies: Sequence[Study], *optimizers: str) -> list[BestRate]:
    """The optimizers whose learning rate was swept, at their best rate."""
    base = note_study_and_finalists(studies)[0]
    best = {} if base is None else best_of_rates(studies, base)
    return [best[optimizer] for optimizer in optimizers if optimizer in best]


class Diagnosed(NamedTuple):
    """Diagnostics of one variant in the last diagnosed epoch, as fractions."""

    against: float | None  # of all steps: against Lion's
    contradicts: float | None  # of the coordinates: the signs of s and of the sum are opposite


def diagnosed(steps_of: Study, memories_of: Study, optimizer: str) -> Diagnosed:
    """The diagnostics of a variant's steps in one study, and of its counter in another."""
    return Diagnosed(
        _last_value(steps_of, optimizer, "against"), _last_value(memories_of, optimizer, "astray_s")
    )


def _last_value(study: Study, optimizer: str, quantity: str) -> float | None:
    if study.diagnostics.empty:
        return None
    last = last_diagnosed(study.diagnostics)
    rows = last[(last["optimizer"] == optimizer) & (last["quantity"] == quantity)]
    values = rows.loc[rows["part"] == "items", "value"]
    return None if values.empty else float(values.mean())


class Kept(NamedTuple):
    """How much of its NDCG@10 an optimizer keeps with corrupted gradients."""

    label: str
    share: float  # in %
    value: float  # the NDCG@10 with corrupted gradients
    strength: str  # of the corruption
    seeds: int


def kept(study: Study, name: str) -> list[Kept]:
    """The share of its NDCG@10 that each optimizer keeps under the strongest corruption of a kind.

    The share is relative to the same optimizer with exact gradients and the same seeds.
    """
    column = METRICS["NDCG@10"]
    lines = []
    for kind in kinds(study):
        if kind.name != name:
            continue
        ends = [kind.runs[kind.runs["x"] == x] for x in (0, len(kind.strengths) - 1)]
        both = ends[1].merge(ends[0], on=["optimizer", "seed"])
        for optimizer, runs in both.groupby("optimizer"):
            corrupted, exact = runs[f"{column}_x"].mean(), runs[f"{column}_y"].mean()
            share = 100 * corrupted / exact
            label = label_of(str(optimizer))
            lines.append(Kept(label, share, corrupted, kind.strengths[-1], len(runs)))
    return sorted(lines, key=lambda k: -k.share)


def still_improving(study: Study) -> str:
    """The number of runs whose last epoch was the best on validation, such as ``5 of 9 runs``."""
    last = study.runs["best_epoch"] == study.runs["epochs"]
    return f"{int(last.sum())} of {len(last)} runs"


def agreeing(frames: Sequence[pd.DataFrame]) -> int:
    """The number of comparisons with published results that agree in all metrics."""
    return sum(bool((frame["agrees"] == "yes").all()) for frame in frames)
