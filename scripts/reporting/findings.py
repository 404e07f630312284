"""What the report's sentences say of the figures: every number in them is computed here."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from scripts.reporting.cells import WITH, bracketed, seeds, signed
from scripts.reporting.corrupted import kinds
from scripts.reporting.note import METRICS, ROWS, VERDICTS
from scripts.reporting.peers import Tried, best_of_rates, compared
from scripts.reporting.statistics import differences, t_interval
from scripts.reporting.studies import Study, baseline_of, variant
from scripts.reporting.style import label_of
from scripts.reporting.tables import (
    Step,
    declared_steps,
    equivalence_margin,
    group_name,
    groups_of,
    last_looks,
    order,
    rows_beside_note,
    search,
    share_with_interval,
)

LARGE = 10  # %: a step's share of the gap that is worth a sentence


class Beside(NamedTuple):
    """A variant's mean NDCG@10 on test and the baseline's, over the seeds that both have."""

    optimizer: str
    label: str
    ours: float
    theirs: float
    seeds: int
    interval: tuple[float, float] | None
    bytes: float
    within: float | None  # by which share of theirs ours differs at most
    loss: tuple[float, float] | None  # the interval of the difference of the lowest training loss

    @property
    def share(self) -> float:
        """Ours in % of theirs, not a fraction."""
        return 100 * self.ours / self.theirs

    @property
    def has_interval(self) -> bool:
        """Whether there are seeds enough for an interval."""
        return self.interval is not None

    @property
    def percent(self) -> str:
        """How far ours lies below or above theirs."""
        off = self.share - 100
        return f"{abs(off):.0f}% {'below' if off < 0 else 'above'}"

    @property
    def significance(self) -> str:
        """Whether the difference can be told from the luck of a seed, in words."""
        if self.interval is None:
            return f"{seeds(self.seeds)}: too few to tell it from luck"
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


def beside(study: Study, optimizer: str) -> Beside:
    """A variant beside its study's baseline."""
    theirs = baseline_of(study.baseline, study.declared.baseline, "")
    own = study.of(optimizer)
    column = METRICS["NDCG@10"]
    d = differences(own, theirs, column)
    both = own.merge(theirs, on="seed")
    return Beside(
        optimizer=optimizer,
        label=label_of(optimizer),
        ours=float(both[f"{column}_x"].mean()),
        theirs=float(both[f"{column}_y"].mean()),
        seeds=len(d),
        interval=t_interval(d),
        bytes=float(own["state_bytes_per_param"].iloc[0]),
        within=equivalence_margin(own, theirs),
        loss=t_interval(differences(own, theirs, METRICS["Loss"])),
    )


def nearest(studies: Sequence[Study]) -> list[Beside]:
    """The variants in the note's setting that keep less than its baseline, the best first.

    They are those of the studies that take their baseline from the note's setting.
    """
    base, finalists = compared(studies)
    if base is None:
        return []
    most = float(base.of(base.declared.baseline)["state_bytes_per_param"].iloc[0])
    found = [b for study in finalists for b in _besides(study)]
    return sorted((b for b in found if b.bytes < most), key=lambda b: -b.share)


def as_large(study: Study) -> list[Beside]:
    """A study's variants that keep as much as its baseline or more, the best first."""
    most = float(study.of(study.declared.baseline)["state_bytes_per_param"].iloc[0])
    return sorted((b for b in _besides(study) if b.bytes >= most), key=lambda b: -b.share)


def _besides(study: Study) -> list[Beside]:
    found = [beside(study, o) for o, swept in study.variants if not swept]
    return [b for b in found if b.seeds and b.optimizer != study.declared.baseline]


def verdicts(study: Study) -> dict[str, list[str]]:
    """The note's variants with each verdict, by their labels."""
    frame = rows_beside_note(study).frame
    given = frame["verdict"].str.partition(" (")[0]
    return {verdict: frame.loc[given == verdict, WITH].tolist() for verdict in VERDICTS}


def largest_steps(study: Study) -> list[Step]:
    """The steps that close 10% of the gap or more, in loss or in NDCG@10, in their order."""
    steps = declared_steps(study)
    return [s for s in steps if round(100 * max(s.of_loss or 0.0, s.of_ndcg or 0.0)) >= LARGE]


def faults(study: Study) -> list[str]:
    """The faults of the first variant that the largest steps mend."""
    mends = study.declared.mends or {}
    return [mends[s.optimizer] for s in largest_steps(study) if s.optimizer in mends]


def last(study: Study) -> str:
    """The note's variant that is last by our mean NDCG@10 on test."""
    ours = study.runs[study.runs["optimizer"].isin(ROWS)]
    return label_of(str(ours.groupby("optimizer")[METRICS["NDCG@10"]].mean().idxmin()))


def last_in_note() -> str:
    """The variant that is last by the note's NDCG@10."""
    return label_of(min(ROWS, key=lambda optimizer: ROWS[optimizer].ndcg))


class Byte(NamedTuple):
    """The best way to divide a byte, by NDCG@10 on valid."""

    swept: str
    valid: float
    lion: float  # the baseline's, over the same seeds


def best_byte(study: Study) -> Byte:
    """The variant with one byte of a study that has the best NDCG@10 on valid."""
    column = "valid/NDCG@10"
    one = study.runs[study.runs["state_bytes_per_param"] == 1]
    best = one.sort_values(column, kind="stable").iloc[-1]
    baseline = variant(study.baseline, study.declared.baseline)
    same = baseline[baseline["seed"] == best["seed"]]
    return Byte(str(best["swept"]), float(best[column]), float(same[column].iloc[0]))


class Agreement(NamedTuple):
    """The order of the note's variants in one study beside the note's order."""

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
    base, made = compared(studies)[0], order(studies)
    if base is None or made is None:
        return []
    frame = made.frame[made.frame["dataset"] != base.dataset]
    columns = ["dataset", "seeds", "Kendall's tau", "p"]
    return [Agreement(*line) for line in frame[columns].itertuples(index=False)]


class Explained(NamedTuple):
    """How many of the note's figures a setting explains."""

    setting: str
    figures: int
    of: int
    n: str


def explained(studies: Sequence[Study]) -> list[Explained]:
    """The settings with all three figures, the note's first and then the best."""
    made = search(studies)
    if made is None:
        return []
    found = []
    frame = made.frame[made.frame["explained"] != ""]
    for setting, own in frame.groupby("setting", sort=False):
        if len(own) == len(METRICS):
            counts = own["explained"].str.split(" of ", expand=True).astype(int).sum()
            found.append(Explained(str(setting), int(counts[0]), int(counts[1]), own["n"].iloc[0]))
    return found[:1] + sorted(found[1:], key=lambda e: -e.figures)


class Rarest(NamedTuple):
    """What a variant changes for the users whose test item is rarest in training."""

    label: str
    group: str
    share: str


def rarest(studies: Sequence[Study]) -> list[Rarest]:
    """The variants of several seeds in the note's setting, those that lose most first."""
    found = []
    for study in compared(studies)[1]:
        own = study.gains[(study.gains["by"] == "popularity") & (study.gains["seeds"] > 1)]
        for optimizer, swept in study.variants:
            lines = variant(own, optimizer, swept)
            if len(lines):
                group = groups_of(lines)[0]
                shown = Rarest(
                    label_of(optimizer, swept), group_name(group), share_with_interval(group)
                )
                found.append((group.difference, shown))
    return [shown for _, shown in sorted(found, key=lambda pair: pair[0])]


def tried(studies: Sequence[Study], *optimizers: str) -> list[Tried]:
    """Optimizers at their best learning rates, without those whose rate was not swept."""
    base = compared(studies)[0]
    best = {} if base is None else best_of_rates(studies, base)
    return [best[optimizer] for optimizer in optimizers if optimizer in best]


class Looked(NamedTuple):
    """What was seen of one variant in the last epoch that was looked at, in shares."""

    against: float | None  # of all steps: against Lion's
    astray: float | None  # of the coordinates: the counter s points against the epoch's gradients


def looked(steps_of: Study, memories_of: Study, optimizer: str) -> Looked:
    """The diagnostics of a variant's steps in one study, and of its counter in another."""
    return Looked(
        _last_value(steps_of, optimizer, "against"), _last_value(memories_of, optimizer, "astray_s")
    )


def _last_value(study: Study, optimizer: str, quantity: str) -> float | None:
    if study.diagnostics.empty:
        return None
    last = last_looks(study.diagnostics)
    own = last[(last["optimizer"] == optimizer) & (last["quantity"] == quantity)]
    values = own.loc[own["of"] == "items", "value"]
    return None if values.empty else float(values.mean())


class Kept(NamedTuple):
    """How much of its NDCG@10 an optimizer keeps with corrupted gradients."""

    label: str
    share: float  # in %, the least over several kinds of corruption at their strongest
    value: float  # the NDCG@10 there


def kept(study: Study, *names: str) -> list[Kept]:
    """What each optimizer keeps of its NDCG@10 where it keeps least of these kinds' strongest.

    The shares are of the same optimizer with exact gradients and the same seeds.
    """
    column = METRICS["NDCG@10"]
    least: dict[str, Kept] = {}
    for kind in kinds(study):
        if kind.name not in names:
            continue
        ends = [kind.runs[kind.runs["x"] == x] for x in (0, len(kind.strengths) - 1)]
        both = ends[1].merge(ends[0], on=["optimizer", "seed"])
        means = both.groupby("optimizer")[[f"{column}_x", f"{column}_y"]].mean()
        for optimizer, (corrupted, exact) in zip(means.index, means.to_numpy(), strict=True):
            one = Kept(label_of(str(optimizer)), 100 * corrupted / exact, corrupted)
            least[str(optimizer)] = min(least.get(str(optimizer), one), one, key=lambda k: k.share)
    return sorted(least.values(), key=lambda k: -k.share)


def still_improving(study: Study) -> str:
    """In how many runs the last epoch was the best on valid, such as ``5 of 9 runs``."""
    last = study.runs["best_epoch"] == study.runs["epochs"]
    return f"{int(last.sum())} of {len(last)} runs"


def agreeing(frames: Sequence[pd.DataFrame]) -> int:
    """How many comparisons with published results agree in all figures."""
    return sum(bool((frame["agrees"] == "yes").all()) for frame in frames)
