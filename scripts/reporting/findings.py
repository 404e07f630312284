"""What the report's sentences say of the figures: every number in them is computed here."""

from typing import NamedTuple

from scripts.reporting.note import METRICS, ROWS, VERDICTS
from scripts.reporting.statistics import differences, t_interval
from scripts.reporting.studies import Study, baseline_of
from scripts.reporting.style import label_of
from scripts.reporting.tables import Step, declared_steps, rows_beside_note, signed

COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Beside(NamedTuple):
    """A variant's mean NDCG@10 on test beside the baseline's, over the seeds that both have."""

    optimizer: str
    label: str
    ours: float
    theirs: float
    seeds: int
    interval: tuple[float, float] | None
    bytes: float

    @property
    def percent(self) -> str:
        """How far ours lies below or above theirs."""
        share = 100 * (self.ours / self.theirs - 1)
        return f"{abs(share):.0f}% {'below' if share < 0 else 'above'}"

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


def beside(study: Study, optimizer: str) -> Beside:
    """A variant beside its study's baseline."""
    theirs = baseline_of(study.baseline, study.declared.baseline, "")
    own = study.of(optimizer)
    column = METRICS["NDCG@10"]
    d = differences(own, theirs, column)
    return Beside(
        optimizer=optimizer,
        label=label_of(optimizer),
        ours=float(own[column].mean()),
        theirs=float(theirs[column].mean()),
        seeds=len(d),
        interval=t_interval(d),
        bytes=float(own["state_bytes_per_param"].iloc[0]),
    )


def nearest(study: Study) -> list[Beside]:
    """A study's variants beside its baseline, the best first."""
    optimizers = dict.fromkeys(o for o, _ in study.variants if o != study.declared.baseline)
    found = [beside(study, optimizer) for optimizer in optimizers]
    return sorted(found, key=lambda b: -b.ours)


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
