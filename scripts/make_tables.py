"""Make the note's tables from runs.csv, its figures beside ours: ``python -m scripts.make_tables``.

A study is one (experiment, model, dataset) that holds the note's rows; each gets a folder with
note_1..3 and rows (every optimizer of the study) as Markdown, CSV and LaTeX. That of the experiment
``validate`` holds Adam alone and gets published (its figures beside the published ones).
"""

import sys
from pathlib import Path

import pandas as pd

from scripts.command_line import parser, results_root
from scripts.errors import ConfigError
from scripts.note import ROWS, TABLES
from scripts.published import FIGURES, comparison
from scripts.run_record import atomically

STUDY = ["experiment", "model", "dataset"]
METRICS = {"HR@10": "test/HR@10", "NDCG@10": "test/NDCG@10", "Loss": "train/loss"}
MISSING = "–"


def make_tables(root: Path, partial: bool) -> dict[str, dict[str, pd.DataFrame]]:
    """Write all tables below ``root/tables``; returns them by study and name.

    Raises:
        ConfigError: runs.csv is missing, or a study lacks a cell and ``partial`` is not set.
    """
    source = root / "runs.csv"
    if not source.is_file():
        raise ConfigError(f"{source}: not there; run `python -m scripts.aggregate` first")
    runs = pd.read_csv(source)
    runs = runs[runs["experiment"] != "single"]
    if len(runs) == 0:
        raise ConfigError(f"{source}: no run of an experiment; train with experiment=NAME")
    studies = {}
    for (experiment, model, dataset), study in runs.groupby(STUDY):
        name = f"{experiment}-{model}-{dataset}"
        check_settings(name, study)
        if experiment == "validate":
            theirs = study[(study["optimizer"] == "adam") & (study["model"] == "sasrec_prenorm")]
            if dataset in FIGURES and len(theirs):
                studies[name] = {"published": comparison(dataset, theirs, METRICS)}
            continue
        if not partial:
            check_seeds(name, study)
        others = [o for o in sorted(study["optimizer"].unique()) if o not in ROWS]
        contents = {t: list(rows) for t, rows in TABLES.items()} | {"rows": [*ROWS, *others]}
        studies[name] = {t: table(study, rows) for t, rows in contents.items()}
    for name, tables in studies.items():  # only once nothing is missing
        for title, frame in tables.items():
            stem = root / "tables" / name / title
            atomically(stem.with_suffix(".md"), markdown(frame).encode())
            atomically(stem.with_suffix(".csv"), frame.to_csv(index=False).encode())
            atomically(stem.with_suffix(".tex"), latex(frame).encode())
    return studies


def check_settings(name: str, study: pd.DataFrame) -> None:
    """Each row of a study was run in one setting."""
    for optimizer, row in study.groupby("optimizer"):
        if row["setting"].nunique() > 1:
            records = row.drop_duplicates("setting")["record"]
            raise ConfigError(
                f"{name}: {optimizer} was run in several settings ({', '.join(records)}); "
                "keep them in an experiment or a results.root of their own"
            )


def check_seeds(name: str, study: pd.DataFrame) -> None:
    """Every row of the note is there, with equal seeds."""
    seeds = {o: set(study.loc[study["optimizer"] == o, "seed"]) for o in ROWS}
    wanted = set().union(*seeds.values())
    for optimizer, found in seeds.items():
        if found != wanted:
            lacking = ", ".join(map(str, sorted(wanted - found)))
            raise ConfigError(
                f"{name}: {optimizer} has no finished run for seed {lacking}; "
                f"train it, or pass --partial to show what there is"
            )


def table(study: pd.DataFrame, optimizers: list[str]) -> pd.DataFrame:
    """One line an optimizer: the note's figures, ours as mean ± sample std, and n."""
    lines = []
    for optimizer in optimizers:
        row = study[study["optimizer"] == optimizer]
        published = ROWS.get(optimizer)
        line = {"SASRec with": published.label if published else optimizer}
        for metric, figure in zip(METRICS, published[1:] if published else (), strict=False):
            line[f"{metric} note"] = f"{figure:.4f}"
        for metric, column in METRICS.items():
            line[f"{metric} ours"] = mean_and_std(row[column])
        lines.append(line | {"n": str(len(row))})
    columns = ["SASRec with", *(f"{m} {who}" for m in METRICS for who in ("note", "ours")), "n"]
    return pd.DataFrame(lines).reindex(columns=columns).fillna(MISSING)


def mean_and_std(values: pd.Series) -> str:
    if len(values) == 0:
        return MISSING
    if len(values) == 1:
        return f"{values.iloc[0]:.4f}"
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


def markdown(frame: pd.DataFrame) -> str:
    rows = [list(frame.columns), ["---", *["---:"] * (len(frame.columns) - 1)], *frame.to_numpy()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def latex(frame: pd.DataFrame) -> str:
    rows = [list(frame.columns), *frame.to_numpy()]
    lines = [" & ".join(row).replace("±", r"$\pm$").replace(MISSING, "--") for row in rows]
    body = "\n".join(f"{line} \\\\" for line in lines[1:])
    return (
        f"\\begin{{tabular}}{{l{'r' * (len(frame.columns) - 1)}}}\n\\toprule\n{lines[0]} \\\\\n"
        f"\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n".replace("_", r"\_")
    )


def main(argv: list[str] | None = None) -> int:
    arguments = parser("scripts.make_tables", __doc__)
    arguments.add_argument(
        "--partial", action="store_true", help=f"show a missing cell as {MISSING}"
    )
    args = arguments.parse_args(argv)
    try:
        root = results_root(args.overrides)
        studies = make_tables(root, args.partial)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, tables in studies.items():
        print(
            f"\n{name} (ours: mean ± sample std over n seeds; the note's figures are on Beauty)\n"
        )
        print(markdown(tables["rows"] if "rows" in tables else tables["published"]))
    print(f"tables: {root / 'tables'}; runs: {root / 'runs.csv'}; records: {root / 'runs'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
