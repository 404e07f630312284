"""What the report's sentences say of the figures: every number in them is computed here."""

from collections.abc import Sequence
from typing import NamedTuple

from scripts.reporting.cells import signed
from scripts.reporting.note import METRICS, ROWS, VERDICTS
from scripts.reporting.peers import compared
from scripts.reporting.statistics import differences, t_interval
from scripts.reporting.studies import Study, baseline_of
from scripts.reporting.style import label_of
from scripts.reporting.tables import Step, declared_steps, rows_beside_note

COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Beside(NamedTuple):
    """A variant's mean NDCG@10 on test and the baseline's, over the seeds that both have."""

    optimizer: str
    label: str
    ours: float
    theirs: float
    seeds: int
    interval: tuple[float, float] | None
    bytes: float

    @property
    def share(self) -> float:
        """Ours in % of theirs."""
        return 100 * self.ours / self.theirs

    @property
    def told(self) -> bool:
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
        clear = "significant" if low > 0 or high < 0 else "not significant"
        return (
            f"{clear}: over {seeds(self.seeds)} the difference is {signed((low + high) / 2)}, "
            f"95% interval {signed(low)} to {signed(high)}"
        )

    @property
    def significance_in_short(self) -> str:
        """The same in as few words as possible."""
        if self.interval is None:
            return f"{seeds(self.seeds)}: too few to tell"
        return f"{self.significance.partition(':')[0]}, {seeds(self.seeds)}"


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
    )


def nearest(studies: Sequence[Study]) -> list[Beside]:
    """The variants of the studies that take the baseline of the note's setting, the best first."""
    _, finalists = compared(studies)
    found = [
        beside(study, optimizer)
        for study in finalists
        for optimizer, _ in study.variants
        if optimizer != study.declared.baseline
    ]
    return sorted((b for b in found if b.seeds), key=lambda b: -b.share)


def verdicts(study: Study) -> dict[str, int]:
    """How many of the note's variants have each verdict."""
    told = rows_beside_note(study).frame["verdict"].str.partition(" (")[0]
    return {verdict: int((told == verdict).sum()) for verdict in VERDICTS}


def largest_steps(study: Study) -> list[Step]:
    """The steps that close a part of the gap, the largest part first."""
    closing = [step for step in declared_steps(study) if step.share is not None]
    return sorted(closing, key=lambda step: -(step.share or 0))


def last(study: Study) -> str:
    """The note's variant that is last by our mean NDCG@10 on test."""
    ours = study.runs[study.runs["optimizer"].isin(ROWS)]
    return label_of(str(ours.groupby("optimizer")[METRICS["NDCG@10"]].mean().idxmin()))


def last_in_note() -> str:
    """The variant that is last by the note's NDCG@10."""
    return label_of(min(ROWS, key=lambda optimizer: ROWS[optimizer].ndcg))


def seeds(n: int) -> str:
    """``one seed``, ``five seeds``."""
    word = COUNTS[n] if n < len(COUNTS) else str(n)
    return f"{word} seed{'' if n == 1 else 's'}"
