"""Make the tables from the CSV files: ``python -m scripts.make_tables``.

A study is one (experiment, model, dataset). One that holds the note's rows gets a folder with

- rows: every optimizer; in the note's own setting beside the note's figures, with verdicts;
- paired: every row beside Lion, over seeds and over users, from two seeds on;
- choices and memories: what the optimizers chose and kept, where runs were diagnosed.

That of the experiment ``lr`` gets rates (every row at every learning rate), those of ``validate*``,
which hold Adam alone, get published (its figures beside the published ones). Outside the folders,
note_1..3.* hold the rows in the note's setting figure by figure, with differences and intervals;
order.* compares the order of the rows over all studies of two seeds or more; search.* holds the
note's losses against the experiments ``search_*``, which depart from its setting. All as Markdown,
CSV and LaTeX.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from scripts.aggregate import load
from scripts.command_line import parser, results_root
from scripts.errors import ConfigError
from scripts.note import TABLES
from scripts.published import FIGURES, comparison
from scripts.run_record import atomically
from scripts.studies import (
    SETTING,
    STUDY,
    compared,
    expected,
    fewest_seeds,
    is_notes,
    of_study,
    searched,
    swept,
)
from scripts.tables import (
    CHOICES,
    MEMORIES,
    METRICS,
    MISSING,
    choices,
    line_of_order,
    looked_at_memories,
    rates,
    search,
    tables_of,
)


def make_tables(root: Path, partial: bool) -> dict[str, pd.DataFrame]:
    """Write all tables below ``root/tables``; returns them by name.

    Raises:
        ConfigError: a CSV file is missing, or a study lacks a cell and ``partial`` is not set.
    """
    made = tables(*load(root), partial=partial)
    if not made:
        raise ConfigError(f"{root / 'runs.csv'}: no run of an experiment; use experiment=NAME")
    for name, frame in made.items():
        stem = root / "tables" / name
        atomically(stem.with_name(f"{stem.name}.md"), markdown(frame).encode())
        atomically(stem.with_name(f"{stem.name}.csv"), frame.to_csv(index=False).encode())
        atomically(stem.with_name(f"{stem.name}.tex"), latex(frame).encode())
    return made


def tables(
    runs: pd.DataFrame, users: pd.DataFrame, looks: pd.DataFrame, partial: bool = False
) -> dict[str, pd.DataFrame]:
    """All tables as ``STUDY/TABLE``, and those over all studies or of the note by their name.

    Raises:
        ConfigError: a study lacks a cell and ``partial`` is not set.
    """
    made = {}
    order = []
    for key, study in compared(runs).groupby(STUDY):
        keys = experiment, _, dataset = tuple(map(str, key))
        name = "-".join(keys)
        check_settings(keys, study)
        if experiment.startswith("validate"):
            theirs = study[(study["optimizer"] == "adam") & (study["model"] == "sasrec_prenorm")]
            if dataset in FIGURES and len(theirs):
                made[f"{name}/published"] = comparison(dataset, theirs, METRICS)
            continue
        if not partial:
            check_seeds(keys, study)
        if swept(study):
            made[f"{name}/rates"] = rates(study)
            continue
        beside = of_study(users[users["seeds"] > 1], keys)
        for table, frame in tables_of(keys, study, beside).items():
            made[table if table in TABLES else f"{name}/{table}"] = frame
        if len(looked := of_study(looks, keys)):
            made[f"{name}/choices"] = choices(looked, CHOICES)
        if looked_at_memories(looked):
            made[f"{name}/memories"] = choices(looked, MEMORIES)
        if fewest_seeds(study) > 1:
            order.append(line_of_order(keys, study))
    tried, ablation = searched(runs), of_study(runs, SETTING)
    for key, study in tried.groupby(STUDY):
        check_settings(tuple(map(str, key)), study)
    if len(tried) and len(ablation) and is_notes(SETTING, ablation):
        made["search"] = search(ablation, tried)
    return made | ({"order": pd.DataFrame(order)} if order else {})


def check_settings(keys: tuple[str, ...], study: pd.DataFrame) -> None:
    """Each row of a study was run in one setting and once a seed; at every value of what it sweeps.

    What all rows have, they have alike.
    """
    name, row_of = "-".join(keys), ["optimizer", *swept(study)]
    twice = study[study.duplicated([*row_of, "seed"], keep=False)]
    if len(twice):
        raise ConfigError(f"{name}: one run, two records ({', '.join(twice['record'])})")
    for column in {"lr", "weight_decay"} - set(row_of):
        if study[column].nunique() > 1:
            raise ConfigError(f"{name}: its rows were run with several values of {column}")
    for (optimizer, *_), row in study.groupby(row_of):
        if row["setting"].nunique() > 1:
            records = row.drop_duplicates("setting")["record"]
            raise ConfigError(
                f"{name}: {optimizer} was run in several settings ({', '.join(records)}); "
                "keep them in an experiment or a results.root of their own"
            )


def check_seeds(keys: tuple[str, ...], study: pd.DataFrame) -> None:
    """Every optimizer is there, with equal seeds and equal values of what is swept."""
    name, cell_of = "-".join(keys), ["seed", *swept(study)]
    cells = {
        o: set(study.loc[study["optimizer"] == o, cell_of].itertuples(index=False))
        for o in expected(study)
    }
    wanted = set().union(*cells.values())
    for optimizer, found in cells.items():
        if found != wanted:
            lacking = ", ".join(
                " ".join(f"{key} {value:g}" for key, value in zip(cell_of, cell, strict=True))
                for cell in sorted(wanted - found)
            )
            raise ConfigError(
                f"{name}: {optimizer} has no finished run for {lacking}; "
                f"train it, or pass --partial to show what there is"
            )


def page(made: Mapping[str, pd.DataFrame], *titles: str) -> str:
    """The tables of these titles as Markdown, each under the name of its study or its own."""
    chosen = [name for name in made if name.split("/")[-1] in titles]
    return "\n".join(f"**{n.rpartition('/')[0] or n}**\n\n{markdown(made[n])}" for n in chosen)


def markdown(frame: pd.DataFrame) -> str:
    rows = [list(frame.columns), ["---", *["---:"] * (len(frame.columns) - 1)], *frame.to_numpy()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def latex(frame: pd.DataFrame) -> str:
    rows = [list(frame.columns), *frame.to_numpy()]
    symbols = {"±": r"$\pm$", "−": "$-$", MISSING: "--", "%": r"\%", " > ": " $>$ ", "_": r"\_"}
    symbols["< "] = "$<$ "
    lines = []
    for row in rows:
        line = " & ".join(row)
        for symbol, code in symbols.items():
            line = line.replace(symbol, code)
        lines.append(f"{line} \\\\")
    body = "\n".join(lines[1:])
    return (
        f"\\begin{{tabular}}{{l{'r' * (len(frame.columns) - 1)}}}\n\\toprule\n{lines[0]}\n"
        f"\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def main(argv: list[str] | None = None) -> int:
    arguments = parser("scripts.make_tables", __doc__)
    arguments.add_argument(
        "--partial", action="store_true", help=f"show a missing cell as {MISSING}"
    )
    args = arguments.parse_args(argv)
    try:
        root = results_root(args.overrides)
        made = make_tables(root, args.partial)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{page(made, 'rows', 'rates', 'published')}")
    print("ours: mean ± sample std over n seeds; loss: lower is better")
    print(f"tables: {root / 'tables'}; runs: {root / 'runs.csv'}; records: {root / 'runs'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
