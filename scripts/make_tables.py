"""Make the tables from the CSV files: ``python -m scripts.make_tables``.

Each goes to results/tables as Markdown, CSV and LaTeX. A study, which is one (experiment, model,
dataset), has a folder with those of its tables that apply:

- rows: every variant; in the note's own setting beside the note's figures, with verdicts;
- paired, along: every variant beside Lion, over seeds and over users, and along the curve;
- grid: every variant at every value of the one key that the study sweeps over;
- published: Adam beside the figures that the note's author published for it;
- choices, memories: what the variants chose and kept, where runs were diagnosed.

Over all studies: headline (for the README), note_1 to note_3 (the note's figures, one by one),
order, search.
"""

import sys

from scripts.records.files import write_atomically
from scripts.reporting.collect import load
from scripts.reporting.command_line import parser, results_root, told
from scripts.reporting.render import latex, markdown, page
from scripts.reporting.studies import Study, studies
from scripts.reporting.tables import tables


@told
def main(argv: list[str] | None = None) -> int:
    args = parser("scripts.make_tables", __doc__).parse_args(argv)
    root = results_root(args.overrides)
    found = studies(load(root))
    made = tables(found)
    for name, table in made.items():
        stem = root / "tables" / name
        for suffix, text in (
            ("md", f"{table.caption}\n\n{markdown(table.frame)}"),
            ("csv", table.frame.to_csv(index=False)),
            ("tex", latex(table, name)),
        ):
            write_atomically(stem.with_name(f"{stem.name}.{suffix}"), text.encode())
    for study in found:
        if lacking := missing(study):
            print(f"{study.name}: no run of {lacking}", file=sys.stderr)
    print(f"\n{page(made, 'rows', 'grid', 'published')}")
    print("mean ± sample std over n seeds; Loss: the lowest of all epochs")
    print(f"tables: {root / 'tables'}; runs: {root / 'runs.csv'}; records: {root / 'runs'}")
    return 0


def missing(study: Study) -> str:
    """Optimizers that an experiment trains and that have no run, and seeds that a variant lacks."""
    seeds = set(study.runs["seed"])
    lacking = [*study.missing]
    for optimizer, swept in study.variants:
        without = sorted(seeds - set(study.of(optimizer, swept)["seed"]))
        if without:
            told = ", ".join(filter(None, (optimizer, swept)))
            lacking.append(f"{told} with seed {', '.join(map(str, without))}")
    return "; ".join(lacking)


if __name__ == "__main__":
    sys.exit(main())
