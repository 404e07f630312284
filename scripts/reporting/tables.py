"""The tables of a study (``TABLES``), and those over all studies (``OVERALL_TABLES``).

To add a table, write a function that returns a ``Table``, or None if it does not apply, and add a
line to ``TABLES`` or ``OVERALL_TABLES``.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd
from scipy import stats

from scripts.reporting import note
from scripts.reporting.cells import (
    MISSING,
    ON_VALIDATION,
    OPTIMIZER,
    Table,
    bracketed,
    count,
    four_decimals,
    mean_and_std,
    p_value,
    percent_with_interval,
    seeds,
    signed,
    signed_percent,
    values_in,
    with_interval,
)
from scripts.reporting.corrupted import corrupted_by
from scripts.reporting.note import BY_SIGN_M, METRICS, NOTE_VALUES, RULE, VERDICTS
from scripts.reporting.published import PUBLISHED, comparison
from scripts.reporting.statistics import Group, differences, holm, t_interval
from scripts.reporting.studies import RUN, VARIANT, Study, baseline_of, variant
from scripts.reporting.style import label_of, short
from scripts.reporting.tuned import best, tuned

ORDER = "by NDCG@10 on test"
EPOCHS_COMPARED = (60, 100, 200, 300, 400, 500)  # epochs
CURVES = {"training loss": "train/loss", "validation NDCG@10": "valid/NDCG@10"}
MOVES = {  # (quantity, part) of scripts/running/diagnostics.py or of ``_against_lion``
    "move against Lion": ("against", "items"),
    "do not move": ("rests", "items"),
    "move, or do not, as Lion would": ("agreement", "items"),
    "move by memory": ("memory", "items"),
    "move without gradient": ("without_gradient", "items"),
    "mean abs(s)/w": ("counter", "items"),
    "moves, rarest fifth": ("path", "1"),
    "moves, most popular": ("path", "5"),
    "net distance, rarest fifth": ("net", "1"),
    "net distance, most popular": ("net", "5"),
}
MEMORIES = {
    "m against the sum of gradients": ("astray_m", "items"),
    "s against the sum of gradients": ("astray_s", "items"),
    "sum of signs against the sum of gradients": ("outvoted", "items"),
    "s against the sum of signs": ("lags", "items"),
}


def metrics_table(study: Study) -> Table | None:
    """One row per variant; in the note's setting, together with the note's results."""
    if study.declared.shown_elsewhere:
        return None
    if compares_with_note(study):
        return metrics_with_note(study)
    lines = []
    ours, notes = means(study.runs, "test/NDCG@10"), {o: row.ndcg for o, row in NOTE_VALUES.items()}
    has_ranks = not study.swept and ours.notna().all()
    shown = [  # columns have the swept values that are not in a label
        (label_of(o, study.in_label(swept)), o, study.of(o, swept)) for o, swept in study.variants
    ]
    shown += [(label_of(o), o, study.of(o)) for o in study.missing_optimizers]
    if study.declared.baseline_from:
        baseline = study.declared.baseline
        label = f"{label_of(baseline)} ({study.declared.baseline_from})"
        shown.append((label, baseline, baseline_of(study.baseline, baseline, "")))
    for label, optimizer, selected in shown:
        line = {
            OPTIMIZER: label,
            "bytes": values_in(selected["state_bytes_per_param"].round(2)),
        }
        line |= {study.short_names[key]: values_in(selected[key]) for key in study.swept}
        if study.swept:
            line |= {ON_VALIDATION: four_decimals(selected["valid/NDCG@10"].mean())}
        line |= {metric: mean_and_std(selected[column]) for metric, column in METRICS.items()}
        line |= {"n": str(len(selected)), "best epoch": best_epochs(selected)}
        if has_ranks and optimizer in NOTE_VALUES:
            line |= {"rank": str(rank(ours, "NDCG@10", optimizer))}
            line |= {"note's rank": str(rank(pd.Series(notes), "NDCG@10", optimizer))}
        lines.append(line)
    caption = (
        "HR@10 and NDCG@10 on test, with the weights of the epoch that was best on validation; "
        "Loss is the lowest training loss of all epochs; mean ± sample std over n seeds; bytes of "
        "optimizer state per parameter."
    )
    if study.swept:
        caption += f" {ON_VALIDATION} is the mean over seeds at the best epoch."
    return Table(pd.DataFrame(lines).fillna(MISSING), caption)


def metrics_with_note(study: Study) -> Table:
    """One row per variant of the note; its verdict is the worst of its three metrics' verdicts."""
    lines = []
    for optimizer in NOTE_VALUES:
        metrics = metrics_of(study, optimizer)
        line = {OPTIMIZER: label_of(optimizer)}
        for metric in metrics:
            line |= {f"{metric['metric']} {who}": metric[who] for who in ("note", "ours")}
        verdicts = [metric["verdict"] for metric in metrics]
        worst = MISSING if MISSING in verdicts else max(verdicts, key=VERDICTS.index)
        if worst in VERDICTS[1:]:
            worst += f" ({', '.join(m['metric'] for m in metrics if m['verdict'] == worst)})"
        selected = study.of(optimizer)
        lines.append(line | {"n": str(len(selected)), "verdict": worst})
    for optimizer, swept in study.variants:
        if optimizer not in NOTE_VALUES:
            selected = study.of(optimizer, swept)
            line = {OPTIMIZER: label_of(optimizer, swept), "n": str(len(selected))}
            ours = {f"{m} ours": mean_and_std(selected[c]) for m, c in METRICS.items()}
            lines.append(line | ours)
    caption = (
        "The note's results and ours: HR@10 and NDCG@10 on test, with the weights of the epoch "
        "that was best on validation; Loss is the lowest training loss of all epochs; mean ± "
        "sample std over n seeds. Each metric has a verdict; the variant's is the worst of the "
        f"three. Brackets name the metrics that have it. {RULE}"
    )
    return Table(pd.DataFrame(lines).fillna(MISSING), caption)


def metrics_of(study: Study, optimizer: str) -> list[dict[str, str]]:
    """One row per metric of a variant: the note's value, ours, the difference and the verdict."""
    lines = []
    metrics = zip(METRICS.items(), NOTE_VALUES[optimizer], strict=True)
    for i, ((metric, column), note_value) in enumerate(metrics):
        ours = study.of(optimizer)[column]
        notes = pd.Series({o: published[i] for o, published in NOTE_VALUES.items()})
        our_rank = rank(means(study.runs, column), metric, optimizer)
        same_rank = None if our_rank is None else our_rank == rank(notes, metric, optimizer)
        half, difference = note.interval_half_width(ours), ours.mean() - note_value
        lines.append(
            {
                OPTIMIZER: label_of(optimizer),
                "metric": metric,
                "note": f"{note_value:.4f}",
                "ours": mean_and_std(ours),
                "n": str(len(ours)),
                "ours − note": signed(difference) if len(ours) else MISSING,
                "95% interval": (
                    MISSING if half is None else bracketed(difference - half, difference + half)
                ),
                "verdict": note.verdict(ours, note_value, same_rank) or MISSING,
            }
        )
    return lines


def paired(study: Study) -> Table | None:
    """One row per variant: differences to the baseline over seeds, and tests over users."""
    users = study.paired[study.paired["seeds"] > 1]
    if users.empty:
        return None
    base = label_of(study.declared.baseline)
    lines = []
    adjusted = {column: holm(users[column].tolist()) for column in ("p_t", "p_wilcoxon")}
    for i, (_, test) in enumerate(users.iterrows()):
        ours = study.of(test["optimizer"], test["swept"])
        theirs = baseline_of(study.baseline, study.declared.baseline, test["swept"])
        line = {OPTIMIZER: label_of(test["optimizer"], test["swept"]), "n": str(test["seeds"])}
        for metric, column in METRICS.items():
            line[f"{metric} − {base}'s"] = with_interval(differences(ours, theirs, column))
        within = equivalence_margin(ours, theirs)
        line["NDCG@10 equal within"] = MISSING if within is None else f"{100 * within:.1f}%"
        line |= {"users better": str(test["better"]), "users worse": str(test["worse"])}
        line |= {"p, t-test": p_value(adjusted["p_t"][i])}
        lines.append(line | {"p, Wilcoxon": p_value(adjusted["p_wilcoxon"][i])})
    order = {label_of(*v): i for i, v in enumerate(study.variants)}
    frame = pd.DataFrame(lines).fillna(MISSING)
    frame = frame.sort_values(OPTIMIZER, key=lambda labels: labels.map(order), ignore_index=True)
    caption = (
        f"Differences to {base}{_same_values(study)} over the n seeds that both have, with the 95% "
        f"interval of Student's t. NDCG@10 equal within: it differs from {base}'s by at most this "
        "% (two one-sided t-tests, TOST, 5%). Then the users whose NDCG@10 on test is better or "
        "worse, and p of paired tests over users, corrected by Holm for the number of variants."
    )
    return Table(frame, caption)


def _same_values(study: Study) -> str:
    """Which runs of the baseline a variant is compared with, if the study sweeps over a key."""
    is_swept = any(swept for o, swept in study.variants if o == study.declared.baseline)
    return " with the same swept values" if is_swept else ""


def equivalence_margin(ours: pd.DataFrame, theirs: pd.DataFrame) -> float | None:
    """The smallest margin, as a share of the baseline's NDCG@10, within which both are equal.

    Two t-tests decide this, one-sided, at 5% (TOST). The margin is the larger end of the 90%
    interval; there is none for fewer than three common seeds.
    """
    bounds = t_interval(differences(ours, theirs, METRICS["NDCG@10"]), 0.9)
    return float(max(map(abs, bounds)) / theirs[METRICS["NDCG@10"]].mean()) if bounds else None


GROUPED_BY = {  # quantities of gains.csv that divide users into groups
    "popularity": "how often the user's test item occurs in training",
    "history": "how many items the user has before the test item",
}


def gains_by(quantity: str) -> Callable[[Study], Table | None]:
    """A function that makes the table of who gains and who loses, one column per group of users."""

    def table(study: Study) -> Table | None:
        gains = study.gains[study.gains["by"] == quantity]
        if not (gains["seeds"] > 1).any():
            return None
        lines = []
        for optimizer, swept in study.variants:
            of_variant = variant(gains, optimizer, swept)
            if len(of_variant) == 0:
                continue
            line = {OPTIMIZER: label_of(optimizer, swept), "n": str(of_variant["seeds"].iloc[0])}
            lines.append(
                line | {group_name(g): share_with_interval(g) for g in groups_of(of_variant)}
            )
        base, sizes = label_of(study.declared.baseline), gains.drop_duplicates(["least", "most"])
        caption = (
            "Who gains and who loses: differences in NDCG@10 on test to "
            f"{base}{_same_values(study)}, over the n seeds that both have, in % of {base}'s in "
            "the same group, with the 95% interval over users. The columns divide users by "
            f"{GROUPED_BY[quantity]}; they have "
            f"{', '.join(f'{users:,}' for users in sizes['users'])} users. Where an interval is "
            "wide, few users have a hit, and the value is uncertain. Intervals are cut off at "
            "-100%, because NDCG@10 is never negative."
        )
        return Table(pd.DataFrame(lines).fillna(MISSING), caption)

    return table


def groups_of(lines: pd.DataFrame) -> list[Group]:
    """The groups in lines of gains.csv, of the least number first."""
    fields = lines.sort_values("least")[list(Group._fields)]
    return [Group(*line) for line in fields.itertuples(index=False)]


def group_name(group: Group) -> str:
    """The numbers of a group's users, such as ``5 to 8``."""
    return f"{group.least}" if group.least == group.most else f"{group.least} to {group.most}"


def share_with_interval(group: Group) -> str:
    """A group's difference in % of the baseline, with its interval, which ends at -100%."""
    if not group.baseline:
        return MISSING
    share, low, high = (x / group.baseline for x in (group.difference, group.low, group.high))
    low = low if math.isnan(low) else max(low, -1.0)  # NDCG@10 is not negative
    return percent_with_interval(share, low, high)


def by_epoch(study: Study) -> Table | None:
    """Differences to the baseline at several epochs, in % of its mean, over five seeds or more."""
    if study.runs.groupby(VARIANT)["seed"].nunique().max() < 5:
        return None
    lines = []
    last = study.curves["epoch"].max()
    epochs = [e for e in EPOCHS_COMPARED if e <= last] or [round(last * i / 5) for i in range(1, 6)]
    for optimizer, swept in study.variants:
        if optimizer == study.declared.baseline:
            continue
        curves = variant(study.curves, optimizer, swept)
        theirs = baseline_of(study.baseline_curves, study.declared.baseline, swept)
        for quantity, column in CURVES.items():
            line = {OPTIMIZER: label_of(optimizer, swept), "difference of": quantity}
            for epoch in epochs:
                at = theirs[theirs["epoch"] == epoch]
                d = differences(curves[curves["epoch"] == epoch], at, column) / at[column].mean()
                if len(d) >= 5:
                    bounds = t_interval(d) or (math.nan, math.nan)
                    line[f"epoch {epoch}"] = percent_with_interval(d.mean(), *bounds, decimals=1)
            lines.append(line)
    if not any(len(line) > 2 for line in lines):
        return None
    base = label_of(study.declared.baseline)
    caption = (
        f"Differences to {base}{_same_values(study)} at several epochs, in % of {base}'s mean, "
        "over at least five seeds that both have, with the 95% interval of Student's t."
    )
    return Table(pd.DataFrame([li for li in lines if len(li) > 2]).fillna(MISSING), caption)


def grid(study: Study) -> Table | None:
    """The best NDCG@10 on validation of each optimizer at each value of the one swept key."""
    key = study.grid_key
    if key is None:
        return None
    name = key.split(".")[-1]
    values = study.runs.pivot_table(index="optimizer", columns=key, values="valid/NDCG@10")
    lines = []
    for optimizer in [*dict.fromkeys(o for o, _ in study.variants), *study.missing_optimizers]:
        cells = values.reindex([optimizer]).loc[optimizer]
        line = {OPTIMIZER: label_of(optimizer)}
        line |= {f"{name} {short(value)}": four_decimals(cell) for value, cell in cells.items()}
        tried = cells.dropna()
        best = tried.idxmax() if len(tried) else None
        line["best"] = MISSING if best is None else short(best)
        if len(tried) > 1 and best in (tried.index[0], tried.index[-1]):
            line["best"] += ", at the edge"
        lines.append(line)
    n, fewest = study.runs["seed"].nunique(), study.fewest_seeds()
    mean_of = seeds(n) if n == fewest else f"{count(fewest)} to {seeds(n)}"
    caption = (
        f"The best NDCG@10 on validation, for each {name}, {study.runs['epochs'].max()} "
        f"epochs, {mean_of if n == 1 else f'mean of {mean_of}'}. A best value at the "
        "edge of those tried may not be the best there is."
    )
    return Table(pd.DataFrame(lines), caption)


class Step(NamedTuple):
    """A declared step: one change against the step before."""

    optimizer: str
    change: str
    losses: pd.Series  # the lowest training loss of each run
    ndcg: pd.Series  # NDCG@10 on test of each run
    of_loss: float | None  # the share of the gap in loss, from the first step to the last
    of_ndcg: float | None  # the share of the gap in NDCG@10


def declared_steps(study: Study) -> list[Step]:
    """The declared steps of a study; only those with runs after the first one have a share."""
    changes = study.declared.steps
    if not changes:
        return []
    loss, ndcg = METRICS["Loss"], METRICS["NDCG@10"]
    of_loss, of_ndcg = _shares_of_gap(study, loss), _shares_of_gap(study, ndcg)
    return [
        Step(o, change, selected[loss], selected[ndcg], of_loss.get(o), of_ndcg.get(o))
        for o, change in changes.items()
        for selected in [study.of(o)]
    ]


def _shares_of_gap(study: Study, column: str) -> dict[str, float]:
    """The share of the gap in a column that each step closes; none if the last is no better."""
    means = {o: study.of(o)[column].mean() for o in study.declared.steps or {}}
    first, *_, last = means.values()
    better = -1 if column == METRICS["Loss"] else 1
    if not better * (last - first) > 0:
        return {}
    known = {optimizer: mean for optimizer, mean in means.items() if not pd.isna(mean)}
    return {
        optimizer: float((mean - before) / (last - first))
        for (_, before), (optimizer, mean) in itertools.pairwise(known.items())
    }


def steps(study: Study) -> Table | None:
    """One line per declared step: the change, its loss and NDCG@10, and the gap that it closes."""
    if not study.declared.steps:
        return None
    lines = []
    for step in declared_steps(study):
        line = {"step": label_of(step.optimizer), "what changes": step.change}
        for name, values, share in (
            ("Loss", step.losses, step.of_loss),
            ("NDCG@10", step.ndcg, step.of_ndcg),
        ):
            line[name] = mean_and_std(values)
            line[f"{name} gap closed"] = MISSING if share is None else signed_percent(share)
        lines.append(line | {"n": str(len(step.losses))})
    start, *_, end = study.declared.steps
    caption = (
        f"From {label_of(start)} to {label_of(end)}, step by step: the lowest training "
        f"loss of {study.runs['epochs'].max()} epochs and NDCG@10 on test, mean ± sample std over "
        "n seeds. Gap closed: the share of the whole gap that the change closes. The shares depend "
        "on the order of the changes."
    )
    return Table(pd.DataFrame(lines).fillna(MISSING), caption)


def published(study: Study) -> Table | None:
    """Our runs of Adam compared with the results that the note's author published."""
    runs = study.of("adam")
    if not (study.declared.compares_with_published and study.dataset in PUBLISHED and len(runs)):
        return None
    caption = (
        "Adam on the pre-norm SASRec: RecBoard's five seeds and ours, mean ± sample std; Loss is "
        "the lowest training loss of all epochs. A metric agrees if the difference is at most two "
        "standard errors of the difference."
    )
    return Table(comparison(study.dataset, runs), caption)


def moves(study: Study) -> Table | None:
    """The diagnostics of each variant's steps in its last diagnosed epoch."""
    if study.diagnostics.empty:
        return None
    last = last_diagnosed(study.diagnostics)
    n = last["seed"].nunique()
    caption = (
        f"Steps of item embeddings in epoch {last['epoch'].max()}, the last diagnosed one, as "
        f"shares of coordinates, {seeds(n) if n == 1 else f'mean of {seeds(n)}'}. Net distance: "
        "between an item's values at the epoch's start and end, in % of the distance if all steps "
        "had one direction."
    )
    return _diagnosed_table(study, MOVES, caption)


def memories(study: Study) -> Table | None:
    """How often a memory's sign contradicts the gradients of the last diagnosed epoch."""
    if not has_memory_diagnostics(study):
        return None
    last = last_diagnosed(study.diagnostics)
    n = last["seed"].nunique()
    caption = (
        f"Coordinates of item embeddings that had a gradient in epoch {last['epoch'].max()}, the "
        f"last diagnosed one ({seeds(n) if n == 1 else f'mean of {seeds(n)}'}): how often the sign "
        "of a memory is opposite to that of the sum of the epoch's gradients, or to that of the "
        "sum of their signs. m was computed for every variant, for comparison."
    )
    return _diagnosed_table(study, MEMORIES, caption)


# A study's table NAME is written to results/tables/STUDY/NAME.
TABLES: dict[str, Callable[[Study], Table | None]] = {
    "metrics": metrics_table,
    "paired": paired,
    **{quantity: gains_by(quantity) for quantity in GROUPED_BY},
    "by_epoch": by_epoch,
    "best": best,
    "grid": grid,
    "corrupted_ndcg": corrupted_by("NDCG@10 on test", METRICS["NDCG@10"]),
    "corrupted_loss": corrupted_by("The lowest training loss", METRICS["Loss"]),
    "steps": steps,
    "published": published,
    "moves": moves,
    "memories": memories,
}


def compares_with_note(study: Study) -> bool:
    """Whether a study is compared with the note: it declares so and has the note's setting."""
    return study.declared.compares_with_note and note.has_note_setting(study.runs)


def headline(studies: Sequence[Study]) -> Table | None:
    """The note's results and ours in six narrow columns, for the README."""
    for study in filter(compares_with_note, studies):
        frame = metrics_with_note(study).frame
        frame = frame[frame["NDCG@10 note"] != MISSING]
        columns = [OPTIMIZER, "NDCG@10 note", "NDCG@10 ours", "Loss note", "Loss ours", "verdict"]
        caption = (
            f"NDCG@10 on test and the lowest training loss of {study.runs['epochs'].max()} epochs; "
            f"ours are mean ± sample std over {seeds(study.runs['seed'].nunique())}. HR@10, "
            "NDCG@10 and Loss each have a verdict. The variant's is the worst of the three; "
            f"brackets name the metrics that have it. {RULE}"
        )
        return Table(frame[columns], caption)
    return None


def note_table(name: str) -> Callable[[Sequence[Study]], Table | None]:
    """A function that makes the table of ``note.TABLES[name]``, one row per metric."""

    def table(studies: Sequence[Study]) -> Table | None:
        for study in filter(compares_with_note, studies):
            lines = [line for o in note.TABLES[name] for line in metrics_of(study, o)]
            caption = (
                "The note's results and ours, metric by metric. The interval is that of one more "
                "run of ours (Student's t). The verdict uses a narrower interval, ± 2 std sqrt(1 + "
                "1/n), so a metric may be not reproduced although the interval shown here contains "
                "0."
            )
            return Table(pd.DataFrame(lines), caption)
        return None

    return table


def order(studies: Sequence[Study]) -> Table | None:
    """The order of the note's variants in each study with two seeds or more."""
    lines = []
    for study in studies:
        ours = means(study.runs, "test/NDCG@10")
        if study.swept or ours.isna().any() or study.fewest_seeds() < 2:
            continue
        ours = ours.sort_values(ascending=False, kind="stable")
        tau = stats.kendalltau([NOTE_VALUES[str(o)].ndcg for o in ours.index], ours)
        lines.append(
            {
                "experiment": study.experiment,
                "model": study.model,
                "dataset": study.dataset,
                "seeds": str(study.fewest_seeds()),
                ORDER: " > ".join(label_of(str(o)) for o in ours.index),
                "sign(m) on top": "yes" if set(ours.index[:3]) == set(BY_SIGN_M) else "no",
                "Kendall's tau": f"{tau.statistic:.2f}",
                "p": f"{tau.pvalue:.3f}",
            }
        )
    caption = (
        "The note's six variants by mean NDCG@10 on test, and Kendall's tau between this order and "
        "the note's, with its two-sided p. sign(m) on top: whether the three variants that move by "
        "the sign of Lion's average m are the first three."
    )
    return Table(pd.DataFrame(lines), caption) if lines else None


def settings_table(studies: Sequence[Study]) -> Table | None:
    """The note's results and ours, in the note's setting and in settings that differ from it.

    A setting reproduces a value of the note if it lies within mean ± 2 std sqrt(1 + 1/n) of its
    runs. The std is that of the study in the note's setting. A variant without a run in a setting
    shows – there, and the number of reproduced values counts its runs in the note's setting
    instead.
    """
    base = next(filter(compares_with_note, studies), None)
    departed = [
        s
        for s in studies
        if base and s.declared.departs_from == base.experiment
        if (s.model, s.dataset) == (base.model, base.dataset)
    ]
    if base is None or not departed:
        return None
    lines = []
    for i, metric in enumerate(METRICS):
        notes = {o: published[i] for o, published in NOTE_VALUES.items()}
        lines.append({"setting": "note", "metric": metric} | _of_six_variants(notes))
    last, at_200 = (
        base.curves[base.curves["epoch"] == epoch] for epoch in (base.curves["epoch"].max(), 200)
    )
    rows = [(base.experiment, base.runs, base.runs, METRICS)]
    for s in departed:
        as_note = s.runs.replace({"optimizer": s.declared.stands_for or {}})
        rows.append((s.experiment, as_note, base.runs, METRICS))
    replaced = [
        f" In {s.experiment}, the column {label_of(of_note)} has {label_of(ours)}."
        for s in departed
        for ours, of_note in (s.declared.stands_for or {}).items()
    ]
    rows += [
        (f"{base.experiment}, last epoch", last, last, {"Loss": "train/loss"}),
        (f"{base.experiment}, epoch 200", at_200, at_200, {"Loss": "train/loss"}),
    ]
    for setting, runs, with_std, metrics in rows:
        for metric, column in metrics.items():
            reproduced = 0
            for optimizer, published in NOTE_VALUES.items():
                known = with_std.loc[with_std["optimizer"] == optimizer, column]
                ours = runs.loc[runs["optimizer"] == optimizer, column]
                ours = ours if len(ours) else known
                note_value = published[list(METRICS).index(metric)]
                bound = 2 * note.prediction_se(known, len(ours)) if len(ours) else 0
                reproduced += abs(ours.mean() - note_value) <= bound
            fewest = int(runs.groupby("optimizer")["seed"].nunique().min())
            line = {"setting": setting, "metric": metric} | _of_six_variants(means(runs, column))
            lines.append(
                line | {"n": str(fewest), "reproduced": f"{reproduced} of {len(NOTE_VALUES)}"}
            )
    caption = (
        "Which setting gives the note's results? HR@10 and NDCG@10 on test, Loss the lowest of all "
        "epochs (in rows that name an epoch, of this epoch), means over n seeds or more. A setting "
        "reproduces a metric of a variant if the note's value lies within mean ± 2 std sqrt(1 + "
        "1/n) of its runs. For a variant without a run in a setting (–), its runs in the note's "
        "setting count instead. The std is that of the runs in the note's setting; fewer seeds "
        "widen the bounds. Settings were chosen by loss and validation metrics; all metrics "
        "decided which one got further seeds."
    )
    caption += "".join(replaced)
    return Table(pd.DataFrame(lines).fillna(""), caption)


# The table NAME over all studies is written to results/tables/NAME.
OVERALL_TABLES: dict[str, Callable[[Sequence[Study]], Table | None]] = {
    "headline": headline,
    **{name: note_table(name) for name in note.TABLES},
    "order": order,
    "tuned": tuned,
    "settings": settings_table,
}


def tables(
    studies: Sequence[Study], wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, Table]:
    """The tables that apply: ``STUDY/NAME`` for a study, ``NAME`` for a table over all studies.

    Args:
        wanted: whether a table with this name is made.
    """
    makers: dict[str, Callable[[], Table | None]] = {
        f"{s.name}/{name}": partial(make, s) for s in studies for name, make in TABLES.items()
    }
    makers |= {name: partial(make, studies) for name, make in OVERALL_TABLES.items()}
    results = {name: make() for name, make in makers.items() if wanted(name)}
    return {name: table for name, table in results.items() if table is not None}


def last_diagnosed(lines: pd.DataFrame) -> pd.DataFrame:
    """The rows of diagnostics.csv for each optimizer's last diagnosed epoch.

    The quantities ``rests`` and ``against`` are added.
    """
    last = lines[lines["epoch"] == lines.groupby("optimizer")["epoch"].transform("max")]
    return pd.concat([last, _against_lion(last)])


def has_memory_diagnostics(study: Study) -> bool:
    """Whether a study's diagnostics have quantities of memories; older records lack them."""
    return bool(study.diagnostics["quantity"].eq("outvoted").any())


def means(runs: pd.DataFrame, column: str) -> pd.Series:
    """The mean of a column for each of the note's variants, in its order; NaN without a run."""
    return runs.groupby("optimizer")[column].mean().reindex(list(NOTE_VALUES))


def rank(values: pd.Series, metric: str, optimizer: str) -> int | None:
    """The rank of an optimizer among the note's variants, from 1; None if a value is NaN."""
    if values.isna().any():
        return None
    return int(values.rank(ascending=metric == "Loss", method="min")[optimizer])


def best_epochs(runs: pd.DataFrame) -> str:
    """The range over seeds of the epochs whose weights were tested, such as ``40 to 55``."""
    if len(runs) == 0:
        return MISSING
    low, high = runs["best_epoch"].min(), runs["best_epoch"].max()
    return f"{low}" if low == high else f"{low} to {high}"


def _diagnosed_table(study: Study, columns: Mapping[str, tuple[str, str]], caption: str) -> Table:
    keys = ["quantity", "part"]
    last = last_diagnosed(study.diagnostics)
    values = last.pivot_table(index="optimizer", columns=keys, values="value")
    lines = []
    for optimizer in dict.fromkeys(o for o, _ in study.variants if o in values.index):
        line = {OPTIMIZER: label_of(optimizer)}
        for title, cell in columns.items():
            value = values.loc[optimizer].get(cell)
            line[title] = MISSING if value is None or pd.isna(value) else f"{round(100 * value)}%"
        lines.append(line)
    return Table(pd.DataFrame(lines), caption)


def _against_lion(lines: pd.DataFrame) -> pd.DataFrame:
    """The shares of item coordinates that do not move (``rests``) and that move ``against`` Lion.

    A coordinate that moves and does not agree with Lion moves against it, because Lion moves every
    coordinate that ever had a gradient. Moves are recorded per fifth of the items. The fifths
    differ by at most one item, so their mean is almost that of all items.
    """
    of_items = lines["part"].eq("items") & lines["quantity"].eq("agreement")
    agrees = lines[of_items].set_index([*RUN, "epoch"])["value"]
    moves = lines[lines["quantity"] == "path"].groupby([*RUN, "epoch"])["value"].mean()
    parts = {"rests": 1 - moves, "against": moves - agrees}
    return pd.concat(
        value.rename("value").reset_index().assign(quantity=name, part="items")
        for name, value in parts.items()
    )


def _of_six_variants(values: Mapping[str, float] | pd.Series) -> dict[str, str]:
    return {label_of(o): four_decimals(values[o]) for o in NOTE_VALUES}
