"""The table ``answer``: are signs enough? State, bits of gradient, NDCG@10, time of a step."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from scripts.reporting.cells import MISSING, OPTIMIZER, Table
from scripts.reporting.finalists import BYTES, NANOSECONDS, state_bytes, step_time
from scripts.reporting.note import METRICS
from scripts.reporting.statistics import differences
from scripts.reporting.studies import Study, baseline_of
from scripts.reporting.style import label_of

BITS = "bits of gradient"
LEVELS = {  # the number of values of a vote; None: the gradient itself, in float32
    "lion": None,
    "lion_8bit_lasting": None,
    "ternary_lion_ef_lasting": 3,
    "ternary_lion_byte_lasting": 3,
    "ternary_lion_byte_fine": 3,
    "simba": 2,
    "sign_sgd": 2,
}


def answer(studies: Sequence[Study], root: Path) -> Table | None:
    """One row per optimizer: state, bits of gradient, NDCG@10 on every dataset, time of a step."""
    datasets = [s for s in studies if s.declared.answers]
    if not datasets:
        return None
    names = list(dict.fromkeys(study.dataset for study in datasets))
    lines = []
    for optimizer, levels in LEVELS.items():
        if (stored := state_bytes(datasets, optimizer)) is None:
            continue
        bits = 32.0 if levels is None else math.log2(levels)
        line = {OPTIMIZER: label_of(optimizer), BYTES: f"{stored:g}", BITS: f"{bits:.2g}"}
        for dataset in names:
            of_dataset = [study for study in datasets if study.dataset == dataset]
            line[f"NDCG@10, {dataset}"] = _ndcg_cell(of_dataset, optimizer)
        time = step_time(root, optimizer)
        lines.append(line | {NANOSECONDS: MISSING if time is None else f"{time:.2f}"})
    epochs = {study.dataset: int(study.runs["epochs"].max()) for study in datasets}
    listed = ", ".join(f"{dataset} {count}" for dataset, count in epochs.items())
    caption = (
        "Bits of gradient: the bits of what a gradient adds to the counter (Lion: to its average), "
        "log2(3) for a ternary vote; with EF, the error keeps the rest. NDCG@10 is the mean on "
        f"test (epochs: {listed}); Lion's row has the value, the other "
        "rows have % of Lion's with the same seeds; in brackets the number of seeds. EF: with "
        "error feedback. Lasting: the counter keeps its sign, and the error, if there is one, "
        "decays. Fine (lasting, too): 15 values of the counter and 17 of the error instead of 31 "
        "and 7. The step of 10 million parameters is compiled into one pass (fused), on one thread."
    )
    return Table(pd.DataFrame(lines), caption) if lines else None


def _ndcg_cell(studies: Sequence[Study], optimizer: str) -> str:
    """The mean NDCG@10 of an optimizer, in % of its baseline's (for the baseline, its value)."""
    column = METRICS["NDCG@10"]
    for study in studies:
        selected = study.of(optimizer)
        if len(selected) == 0:
            continue
        if optimizer == study.declared.baseline:
            return f"{selected[column].mean():.4f} ({len(selected)})"
        theirs = baseline_of(study.baseline, study.declared.baseline, "")
        d = differences(selected, theirs, column)
        if len(d):
            of_both = theirs[theirs["seed"].isin(selected["seed"])][column].mean()
            return f"{100 + 100 * d.mean() / of_both:.1f}% ({len(d)})"
    return MISSING
