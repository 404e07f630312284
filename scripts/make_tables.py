"""Make the tables from the CSV files: ``python -m scripts.make_tables``.

They go to results/tables as Markdown, CSV and LaTeX. A study is one (experiment, model, dataset).
Its folder holds the tables that apply to it:

- metrics: HR@10, NDCG@10 and loss of every variant; in the note's setting, with the note's results;
- paired: differences to the baseline, over seeds and over users;
- by_epoch: differences to the baseline at several epochs;
- popularity, history: differences to the baseline for groups of users;
- grid: NDCG@10 at every value of the one key that the study sweeps over;
- best: each optimizer at its best rate and decay, if the study sweeps over them;
- corrupted_ndcg, corrupted_loss: NDCG@10 and loss with corrupted gradients;
- steps: what each change adds, for an experiment that declares steps;
- published: Adam compared with the results that the note's author published for it;
- moves: how often a coordinate moves, and in whose direction (with ``diagnose_every``);
- memories: how often a memory contradicts the gradients (with ``diagnose_every``).

Tables over all studies:

- headline, answer: those of the README;
- note_1 to note_3: the note's results, one by one, and verdicts;
- settings: the note's variants in other settings than the assumed one;
- order: the variants' order by NDCG@10 on each dataset;
- tuned: each optimizer at its best learning rate and decay;
- goal: which variants reach 99% of Lion's results, on each dataset;
- finalists: state, results and speed of the variants with little state;
- state_bytes: bytes of state; robustness: spread over seeds and learning rates;
- variants, experiments: each of them in words.

Examples:

  python -m scripts.make_tables
  python -m scripts.make_tables results.root=results/reproduced
"""

import sys

from scripts.records.files import write_atomically
from scripts.reporting.collect import load
from scripts.reporting.command_line import one_line_errors, parse, parser
from scripts.reporting.folder_tables import folder_tables
from scripts.reporting.render import latex, markdown, show
from scripts.reporting.studies import studies
from scripts.reporting.tables import tables

SHOWN = ("metrics", "grid", "published")  # tables of a study that are printed, too


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    root = parse(parser("scripts.make_tables", __doc__), argv).root
    all_studies = studies(load(root))
    all_tables = tables(all_studies) | folder_tables(all_studies, root)
    for name, table in all_tables.items():
        stem = root / "tables" / name
        for suffix, text in (
            ("md", f"{table.caption}\n\n{markdown(table.frame)}"),
            ("csv", table.frame.to_csv(index=False)),
            ("tex", latex(table, name)),
        ):
            write_atomically(stem.with_name(f"{stem.name}.{suffix}"), text.encode())
    for study in all_studies:
        if missing := study.missing_runs_text:
            print(f"{study.name}: no run of {missing}", file=sys.stderr)
    for name, table in all_tables.items():
        study_name, _, kind = name.partition("/")
        if kind in SHOWN:
            show(table, study_name)
    print(f"tables: {root / 'tables'}; runs: {root / 'runs.csv'}; records: {root / 'runs'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
