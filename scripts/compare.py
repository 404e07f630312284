"""Compare two variants: ``python -m scripts.compare A B``.

A and B are EXPERIMENT/OPTIMIZER, for all its seeds, or the file of one record:

  python -m scripts.compare finalists/ternary_lion_ef ablation/lion
  python -m scripts.compare ablation/simba_m ablation/lion --dataset toys --figure curves.png
  python -m scripts.compare results/runs/ml-100k/lion/reproduce-sasrec-seed0.json reproduce/simba

It prints the differences over equal seeds, the numbers of users that gain and lose, and the mean
difference by length of history and by popularity of the test item, if the dataset can be read.
"""

import sys
from pathlib import Path

from data.errors import DataError
from data.prepare import CONFIGS, compose, prepare
from scripts.records.errors import UserError
from scripts.reporting import comparison
from scripts.reporting.collect import load
from scripts.reporting.command_line import parser, results_root, told
from scripts.reporting.render import show
from scripts.reporting.studies import studies


@told
def main(argv: list[str] | None = None) -> int:
    arguments = parser("scripts.compare", __doc__)
    arguments.add_argument("--dataset", help="if a variant was run on several")
    arguments.add_argument("--figure", type=Path, help="write the curves to this PNG or PDF")
    args = arguments.parse_args(argv)
    names = [word for word in args.overrides if "=" not in word or Path(word).exists()]
    if len(names) != 2:
        raise UserError(f"expected two variants, got {len(names)}: see --help")
    root = results_root([word for word in args.overrides if word not in names])
    found = studies(load(root))
    a, b = (comparison.find(found, name, args.dataset) for name in names)
    datasets = {a.runs["dataset"].iloc[0], b.runs["dataset"].iloc[0]}
    if len(datasets) > 1:
        raise UserError(f"they were run on different datasets: {', '.join(sorted(datasets))}")
    d = comparison.gains(root, a, b)
    tables = [comparison.figures(a, b), comparison.users(d)]
    (dataset,) = datasets
    if (CONFIGS / "data" / f"{dataset}.yaml").exists():
        try:
            data = prepare(compose(dataset, [])).sequences
            last = data.items[data.offsets[1:][data.evaluated] - 1]
            lengths = data.lengths[data.evaluated]
            tables.append(comparison.by_group(d, lengths, "length of the history"))
            popularity = data.popularity[last - 1]
            tables.append(comparison.by_group(d, popularity, "popularity of the test item"))
        except DataError as error:
            print(f"without the dataset, who gains cannot be told: {error}", file=sys.stderr)
    for table in tables:
        show(table)
    if args.figure:
        comparison.draw(a, b).savefig(args.figure, dpi=110)
        print(args.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
