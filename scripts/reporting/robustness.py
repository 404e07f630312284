"""Bytes of an optimizer's state, and how much its result depends on the seed and on the rate."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from scripts.reporting.cells import MISSING, OPTIMIZER, Table
from scripts.reporting.finalists import BYTES, note_study_and_finalists, rate_grids, state_bytes
from scripts.reporting.note import METRICS
from scripts.reporting.studies import Study
from scripts.reporting.style import label_of, short

REFERENCES = ("adamw",)  # compared by bytes of state alone


def state_table(studies: Sequence[Study], _: Path) -> Table | None:
    """The state of every variant in the note's setting and of AdamW, the smallest first."""
    runs = _runs(studies)
    if runs is None:
        return None
    column = METRICS["NDCG@10"]
    bytes_of = {o: state_bytes(studies, o) for o in [*runs["optimizer"].unique(), *REFERENCES]}
    known = sorted((b, o) for o, b in bytes_of.items() if b is not None)
    lines = []
    for per_parameter, optimizer in known:
        selected = runs.loc[runs["optimizer"] == optimizer, column]
        line = {OPTIMIZER: label_of(optimizer), BYTES: f"{per_parameter:g}"}
        for other in ("lion", *REFERENCES):
            if whole := bytes_of.get(other):
                line[f"of {label_of(other)}'s"] = f"{100 * per_parameter / whole:.3g}%"
        line |= {"NDCG@10": f"{selected.mean():.4f}" if len(selected) else MISSING}
        lines.append(line | {"n": str(len(selected))})
    caption = (
        "Optimizer state, the smallest first, without parameters and gradients, and the mean "
        f"NDCG@10 on test over n seeds, {runs['epochs'].max()} epochs."
    )
    return Table(pd.DataFrame(lines).fillna(MISSING), caption)


def robustness(studies: Sequence[Study], _: Path) -> Table | None:
    """How far the results of a variant lie apart, over seeds and over learning rates."""
    base = note_study_and_finalists(studies)[0]
    runs = _runs(studies)
    grids = [] if base is None else rate_grids(studies, base)
    if base is None or runs is None or not grids:
        return None
    column = METRICS["NDCG@10"]
    rates = pd.concat([study.runs for study in grids])
    lines = []
    for optimizer in dict.fromkeys([*runs["optimizer"], *rates["optimizer"]]):
        selected = runs.loc[runs["optimizer"] == optimizer, column]
        line = {OPTIMIZER: label_of(optimizer), "n": str(len(selected))}
        if len(selected) > 1:
            line |= {
                "lowest seed": f"{selected.min():.4f}",
                "highest seed": f"{selected.max():.4f}",
            }
            line["std, in % of the mean"] = f"{100 * selected.std(ddof=1) / selected.mean():.1f}%"
        at = rates[rates["optimizer"] == optimizer].groupby("lr")["valid/NDCG@10"].mean()
        if len(at):
            line |= {"best rate": short(float(at.idxmax())), "rates": str(len(at))}
            line["worst rate, in % of the best"] = f"{100 * at.min() / at.max():.0f}%"
        lines.append(line)
    caption = (
        f"NDCG@10 on test over n seeds in the note's setting, {base.runs['epochs'].max()} epochs. "
        "At the right, NDCG@10 on validation over learning rates, "
        f"{rates['epochs'].max():.0f} epochs, one seed: at the worst rate, in % of the best. "
        "The rates span different ranges, so these shares are not comparable."
    )
    return Table(pd.DataFrame(lines).fillna(MISSING), caption)


def _runs(studies: Sequence[Study]) -> pd.DataFrame | None:
    """The runs in the note's setting, of the note's variants and of those compared with them."""
    base, finalists = note_study_and_finalists(studies)
    return None if base is None else pd.concat([study.runs for study in (base, *finalists)])
