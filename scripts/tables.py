"""The tables of a study; scripts/make_tables.py says which there are."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from scipy import stats

from scripts import paired
from scripts.note import ROWS, TABLES, VERDICTS, interval, spread, verdict
from scripts.studies import (
    RUN,
    SEARCH,
    SETTING,
    STUDY,
    curves,
    expected,
    fewest_seeds,
    is_notes,
)

METRICS = {"HR@10": "test/HR@10", "NDCG@10": "test/NDCG@10", "Loss": "train/loss"}
DECIDES = "NDCG@10"  # the order of the rows
BY_SIGN_M = ("lion", "simba_m", "simba_c_eq_m")  # rows whose memory moves by sign(m)
CHOICES = {  # of the looks of scripts/diagnosis.py
    "move against Lion": ("against", "items"),
    "rest": ("rests", "items"),
    "move, or rest, as Lion would": ("agreement", "items"),
    "move by memory": ("memory", "items"),
    "move without gradient": ("without_gradient", "items"),
    "mean abs(s)/w": ("counter", "items"),
    "moves, rarest fifth": ("path", "1"),
    "moves, most popular": ("path", "5"),
    "distance made, rarest fifth": ("net", "1"),
    "distance made, most popular": ("net", "5"),
}
MEMORIES = {
    "m against the epoch's sum": ("astray_m", "items"),
    "s against the epoch's sum": ("astray_s", "items"),
    "epoch's count against its sum": ("outvoted", "items"),
    "s against the epoch's count": ("lags", "items"),
}
LAST = "ablation, last epoch"
LOWEST = "ablation, lowest loss of the evaluated epochs"
MISSING = "–"
LABELS = {  # of optimizers that are not the note's
    "adam": "Adam",
    "adamw": "AdamW",
    "lion_8bit": "8-bit Lion",
    "simba_eq4": "Simba by eq. 4",
    "simba_leaky": "Simba, leaky",
    "simba_window": "Simba, window",
    "ternary_lion": "Ternary Lion",
    "ternary_lion_byte": "Ternary Lion EF, one byte",
    "ternary_lion_ef": "Ternary Lion EF, two bytes",
}


def tables_of(
    keys: tuple[str, ...], study: pd.DataFrame, users: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    others = [o for o in sorted(study["optimizer"].unique()) if o not in ROWS]
    made = {"paired": beside_lion(study, users, [*ROWS, *others])} if len(users) else {}
    if is_notes(keys, study):
        lines = {o: figures_of(study, o) for o in ROWS}
        for table, rows in TABLES.items():
            made[table] = pd.DataFrame([line for o in rows for line in lines[o]])
        made["rows"] = summary(study, lines, others)
    else:
        made["rows"] = plain_rows(study, in_order(study))
    return made


def figures_of(study: pd.DataFrame, optimizer: str) -> list[dict[str, str]]:
    """A row of the note, figure by figure: the note's, ours, how they differ and what it means."""
    lines = []
    label, *figures = ROWS[optimizer]
    for i, ((metric, column), figure) in enumerate(zip(METRICS.items(), figures, strict=True)):
        ours = _of(study, optimizer, column)
        note = pd.Series({o: published[i + 1] for o, published in ROWS.items()})
        here = place(means(study, column), metric, optimizer)
        same_place = None if here == MISSING else here == place(note, metric, optimizer)
        half, difference = interval(ours), ours.mean() - figure
        lines.append(
            {
                "SASRec with": label,
                "figure": metric,
                "note": f"{figure:.4f}",
                "ours": mean_and_std(ours),
                "n": str(len(ours)),
                "ours − note": f"{difference:+.4f}" if len(ours) else MISSING,
                "95% interval": _interval(difference, half),
                "verdict": verdict(ours, figure, same_place) or MISSING,
            }
        )
    return lines


def summary(
    study: pd.DataFrame, lines: Mapping[str, list[dict[str, str]]], others: list[str]
) -> pd.DataFrame:
    """One line an optimizer; its verdict is the worst of its three figures', which are named."""
    rows = []
    for optimizer, figures in lines.items():
        row = {"SASRec with": figures[0]["SASRec with"]}
        for figure in figures:
            row |= {f"{figure['figure']} {who}": figure[who] for who in ("note", "ours")}
        verdicts = [figure["verdict"] for figure in figures]
        worst = MISSING if MISSING in verdicts else max(verdicts, key=VERDICTS.index)
        if worst in VERDICTS[1:]:
            worst += f" ({', '.join(f['figure'] for f in figures if f['verdict'] == worst)})"
        row |= {"n": figures[0]["n"], "best epoch": best_epochs(study, optimizer)}
        rows.append(row | {"verdict": worst})
    for optimizer in others:
        own = study[study["optimizer"] == optimizer]
        ours = {f"{metric} ours": mean_and_std(own[c]) for metric, c in METRICS.items()}
        row = {"SASRec with": optimizer, **ours, "n": str(len(own))}
        rows.append(row | {"best epoch": best_epochs(study, optimizer)})
    return pd.DataFrame(rows).fillna(MISSING)


def plain_rows(study: pd.DataFrame, optimizers: list[str]) -> pd.DataFrame:
    """One line an optimizer: ours as mean ± sample std, n, and the place among the six rows."""
    lines = []
    ours = means(study, METRICS[DECIDES])
    note = pd.Series({o: row.ndcg for o, row in ROWS.items()})
    for optimizer in optimizers:
        row = study[study["optimizer"] == optimizer]
        line = {"SASRec with": label_of(optimizer)}
        line |= {metric: mean_and_std(row[column]) for metric, column in METRICS.items()}
        line |= {"n": str(len(row)), "best epoch": best_epochs(study, optimizer)}
        line |= {"place": place(ours, DECIDES, optimizer)}
        lines.append(line | {"note's place": place(note, DECIDES, optimizer)})
    return pd.DataFrame(lines)


def beside_lion(study: pd.DataFrame, users: pd.DataFrame, optimizers: list[str]) -> pd.DataFrame:
    """Mean difference to Lion over seeds with a bootstrap interval, and the test over users."""
    users = users.set_index("optimizer")
    users = users.assign(holm=paired.holm(users["p"].tolist()))
    lines = []
    for optimizer in optimizers:
        if optimizer not in users.index:
            continue
        test = users.loc[optimizer]
        line = {"SASRec with": label_of(optimizer), "n": str(test["seeds"])}
        for metric, column in METRICS.items():
            d = paired.differences(study, optimizer, column)
            line[f"{metric} − Lion's"] = f"{d.mean():+.4f}"
            if bounds := paired.bootstrap(d):
                line[f"{metric} − Lion's"] += f" [{bounds[0]:+.4f}, {bounds[1]:+.4f}]"
        line |= {"users better": str(test["better"]), "users worse": str(test["worse"])}
        p = test["holm"]
        lines.append(line | {"p (Holm)": "< 0.0001" if p < 1e-4 else f"{p:.4f}"})
    return pd.DataFrame(lines)


def rates(study: pd.DataFrame) -> pd.DataFrame:
    """Best NDCG@10 on valid at every learning rate, mean over seeds, and the rate that is best."""
    found = study.pivot_table(index="optimizer", columns="lr", values="valid/NDCG@10")
    lines = []
    for optimizer in in_order(study):
        line = {"valid NDCG@10 with": label_of(optimizer)}
        cells = found.reindex([optimizer]).loc[optimizer]
        line |= {f"lr {label_of_rate(lr)}": _cell(value) for lr, value in cells.items()}
        best = label_of_rate(cells.idxmax()) if cells.notna().any() else MISSING
        lines.append(line | {"best lr": best})
    return pd.DataFrame(lines)


def choices(looks: pd.DataFrame, columns: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """What each row chose or kept at its last look, mean over seeds; see scripts/diagnosis.py."""
    keys = ["quantity", "of"]
    found = last_looks(looks).pivot_table(index="optimizer", columns=keys, values="value")
    lines = []
    for optimizer in [o for o in ROWS if o in found.index]:
        line = {"item embeddings with": label_of(optimizer)}
        for title, cell in columns.items():
            value = found.loc[optimizer].get(cell)
            line[title] = MISSING if value is None or pd.isna(value) else f"{round(100 * value)}%"
        lines.append(line)
    return pd.DataFrame(lines)


def last_looks(looks: pd.DataFrame) -> pd.DataFrame:
    """Each optimizer's, and what they say of its steps beside Lion's."""
    last = looks[looks["epoch"] == looks.groupby("optimizer")["epoch"].transform("max")]
    return pd.concat([last, _beside_lion(last)])


def looked_at_memories(looks: pd.DataFrame) -> bool:
    """Records from before memories were looked at are not."""
    return bool(looks["quantity"].eq("outvoted").any())


def _beside_lion(looks: pd.DataFrame) -> pd.DataFrame:
    """Shares of the item embeddings that ``rests`` or moves ``against`` Lion, look by look.

    What moves and does not agree with Lion goes against it: Lion itself moves every weight that
    ever had a gradient. Moves are recorded by fifths of the items, which are equally many.
    """
    of_items = looks["of"].eq("items") & looks["quantity"].eq("agreement")
    agrees = looks[of_items].set_index([*RUN, "epoch"])["value"]
    moves = looks[looks["quantity"] == "path"].groupby([*RUN, "epoch"])["value"].mean()
    parts = {"rests": 1 - moves, "against": moves - agrees}
    return pd.concat(
        value.rename("value").reset_index().assign(quantity=name, of="items")
        for name, value in parts.items()
    )


def line_of_order(keys: tuple[str, ...], study: pd.DataFrame) -> dict[str, str]:
    """Does the order of the note's rows hold in this study?"""
    ours = means(study, METRICS[DECIDES]).dropna().sort_values(ascending=False, kind="stable")
    on_top, tau = MISSING, MISSING
    if len(ours) == len(ROWS):
        on_top = "yes" if set(ours.index[: len(BY_SIGN_M)]) == set(BY_SIGN_M) else "no"
        tau = f"{stats.kendalltau([ROWS[str(o)].ndcg for o in ours.index], ours).statistic:.2f}"
    return {
        **dict(zip(STUDY, keys, strict=True)),
        "seeds": str(fewest_seeds(study)),
        f"rows by {DECIDES} on test": " > ".join(label_of(str(o)) for o in ours.index),
        "sign(m) on top": on_top,
        "Kendall's tau with the note": tau,
    }


def search(base: pd.DataFrame, searched: pd.DataFrame) -> pd.DataFrame:
    """The note's losses beside ours in its setting and in those that were searched (``search_*``).

    A setting explains a row if the note's loss is as near to the mean of its runs as one more run
    would be, by the spread of the ablation's. A row that a setting leaves as it is has no runs of
    it (–) and counts as it does in the ablation. Nothing is searched by figures on test; NDCG@10
    on valid is that of the best epoch where no other is named.
    """
    searched = searched.replace({"optimizer": {"simba_eq4": "simba"}})  # the row by another rule
    points = curves(base)
    tried = {
        "ablation": base,
        LAST: points[points["epoch"] == points["epoch"].max()],
        "ablation, epoch 200": points[points["epoch"] == 200],
        LOWEST: points.groupby(RUN, as_index=False).min(),
    }
    alike = (searched[STUDY[1:]] == list(SETTING[1:])).all(axis=1)
    for experiment, study in searched[alike].groupby("experiment"):
        tried[str(experiment).removeprefix(SEARCH).replace("_", " ")] = study
    losses = {o: _of(base, o, "train/loss") for o in ROWS}
    lines = [_line("note", "loss", {o: row.loss for o, row in ROWS.items()})]
    for setting, study in tried.items():
        if setting != LAST:  # a loss is of the last epoch as it is
            explained = 0
            for o, row in ROWS.items():
                changed = _of(study, o, "train/loss")
                here = changed if len(changed) else losses[o]
                if len(here):
                    explained += abs(here.mean() - row.loss) <= 2 * spread(losses[o], len(here))
            line = _line(setting, "loss", means(study, "train/loss"))
            line |= {"n": str(fewest_seeds(study))}
            lines.append(line | {"rows explained": f"{explained} of {len(ROWS)}"})
        if setting != LOWEST:
            lines.append(_line(setting, "valid NDCG@10", means(study, "valid/NDCG@10")))
    return pd.DataFrame(lines).fillna("")


def _of(study: pd.DataFrame, optimizer: object, column: str) -> pd.Series:
    return study.loc[study["optimizer"] == optimizer, column]


def _line(setting: str, quantity: str, values: Mapping[str, float] | pd.Series) -> dict[str, str]:
    cells = {row.label: _cell(values[o]) for o, row in ROWS.items()}
    return {"setting": setting, "quantity": quantity, **cells}


def means(study: pd.DataFrame, column: str) -> pd.Series:
    """Of the note's rows, in its order."""
    return study.groupby("optimizer")[column].mean().reindex(list(ROWS))


def place(values: pd.Series, metric: str, optimizer: str) -> str:
    """1 for the best of the note's rows; none while one of them has no value."""
    if values.isna().any() or optimizer not in values.index:
        return MISSING
    ranks = values.rank(ascending=metric == "Loss", method="min").astype(int)
    return str(ranks[optimizer])


def in_order(study: pd.DataFrame) -> list[str]:
    """A study's optimizers: those of the note in its order, then the others by name."""
    names = expected(study)
    return [o for o in ROWS if o in names] + [o for o in names if o not in ROWS]


def label_of(optimizer: str) -> str:
    return ROWS[optimizer].label if optimizer in ROWS else LABELS.get(optimizer, optimizer)


def label_of_rate(lr: Any) -> str:
    """3e-4 for 0.0003."""
    short = f"{lr:.0e}"
    return short.replace("e-0", "e-") if lr == float(short) else f"{lr:g}"


def best_epochs(study: pd.DataFrame, optimizer: str) -> str:
    """The epochs whose weights were tested, from the earliest to the latest of all seeds."""
    epochs = _of(study, optimizer, "best_epoch")
    if len(epochs) == 0:
        return MISSING
    low, high = epochs.min(), epochs.max()
    return f"{low}" if low == high else f"{low} to {high}"


def mean_and_std(values: pd.Series) -> str:
    if len(values) == 0:
        return MISSING
    if len(values) == 1:
        return f"{values.iloc[0]:.4f}"
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


def _cell(value: Any) -> str:
    return MISSING if pd.isna(value) else f"{value:.4f}"


def _interval(middle: float, half: float | None) -> str:
    return MISSING if half is None else f"[{middle - half:+.4f}, {middle + half:+.4f}]"
