"""Make the tables from the CSV files: ``python -m scripts.make_tables``.

They go to results/tables as Markdown, CSV and LaTeX. A study is one (experiment, model, dataset).
Its folder holds the tables that apply to it:

- rows: every variant; in the note's setting, with the note's results and verdicts;
- paired: every variant compared with the baseline, over seeds and over users;
- popularity, history: which users gain and lose, by groups of users;
- along: the same comparison at several epochs;
- grid: every variant at every value of the one key that the study sweeps over;
- corrupted_ndcg, corrupted_loss: every variant with corrupted gradients;
- steps: what each change adds, for an experiment that declares steps;
- published: Adam compared with the results that the note's author published for it;
- choices, memories: diagnostics, of runs with ``diagnose_every``.

Tables over all studies: headline and answer (for the README), note_1 to note_3 (the note's results,
one by one), order, search, tuned, peers, memory, robustness, variants, experiments. Examples:

  python -m scripts.make_tables
  python -m scripts.make_tables results.root=results/reproduced
"""

import sys

from scripts.records.files import write_atomically
from scripts.reporting.collect import load
from scripts.reporting.command_line import one_line_errors, parse, parser
from scripts.reporting.overview import overview
from scripts.reporting.render import latex, markdown, show
from scripts.reporting.studies import studies
from scripts.reporting.tables import tables

SHOWN = ("rows", "grid", "published")  # tables of a study that are printed, too


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    root = parse(parser("scripts.make_tables", __doc__), argv).root
    all_studies = studies(load(root))
    all_tables = tables(all_studies) | overview(all_studies, root)
    for name, table in all_tables.items():
        stem = root / "tables" / name
        for suffix, text in (
            ("md", f"{table.caption}\n\n{markdown(table.frame)}"),
            ("csv", table.frame.to_csv(index=False)),
            ("tex", latex(table, name)),
        ):
            write_atomically(stem.with_name(f"{stem.name}.{suffix}"), text.encode())
    for study in all_studies:
        if lacking := study.missing_runs:
            print(f"{study.name}: no run of {lacking}", file=sys.stderr)
    for name, table in all_tables.items():
        owner, _, kind = name.partition("/")
        if kind in SHOWN:
            show(table, owner)
    print(f"tables: {root / 'tables'}; runs: {root / 'runs.csv'}; records: {root / 'runs'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
