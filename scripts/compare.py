"""Compare two variants over seeds, over users and by groups of users.

A variant is named by EXPERIMENT/OPTIMIZER, by EXPERIMENT/OPTIMIZER/VALUES if the experiment sweeps
over more than optimizers and seeds (VALUES as in a table, such as lr 3e-4), by EXPERIMENT for all
its variants, or by the file of a record. Examples:

  python -m scripts.compare finalists/ternary_lion_ef ablation/lion --dataset beauty
  python -m scripts.compare finalists ablation/lion --dataset beauty
  python -m scripts.compare ablation/simba_m ablation/lion --dataset toys --figure simba_m.pdf
  python -m scripts.compare 'lr/lion/lr 3e-4' 'lr/lion/lr 1e-4'
  python -m scripts.compare results/runs/ml-100k/lion/reproduce-sasrec-seed0.json reproduce/simba
"""

import sys
from pathlib import Path

from scripts.records.errors import UserError
from scripts.reporting import comparison
from scripts.reporting.collect import load
from scripts.reporting.command_line import one_line_errors, parse, parser
from scripts.reporting.render import show
from scripts.reporting.studies import studies


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    arguments = parser("scripts.compare", __doc__)
    arguments.add_argument(
        "names",
        nargs=2,
        metavar="VARIANT",
        help="two of: EXPERIMENT/OPTIMIZER[/VALUES], EXPERIMENT (all of it), the file of a record",
    )
    arguments.add_argument(
        "--dataset", help="dataset of the runs, if an experiment was run on several"
    )
    arguments.add_argument("--figure", type=Path, help="draw the comparison to this PNG or PDF")
    args = parse(arguments, argv)
    if args.figure and args.figure.suffix not in (".png", ".pdf"):
        raise UserError(f"--figure {args.figure}: its name must end with .png or .pdf")
    all_studies = studies(load(args.root))
    a, b = (comparison.find(args.root, all_studies, name, args.dataset) for name in args.names)
    pairs = comparison.pairs(a, b)
    if args.figure and len(pairs) > 1:
        raise UserError(
            f"--figure draws a single comparison, but the names match {len(pairs)}; give "
            "EXPERIMENT/OPTIMIZER for both, with /VALUES where there are several"
        )
    for one, other in pairs:
        compared = comparison.compare(args.root, one, other)
        for table in comparison.tables(compared):
            show(table)
        if not compared.groups:
            print(
                f"no comparison by groups of users: {args.root / 'users'} has no file for this "
                "dataset; a training writes it"
            )
        if args.figure:
            try:
                comparison.draw(compared).savefig(args.figure)
            except (OSError, ValueError) as error:
                reason = " ".join(str(error).split())
                raise UserError(f"--figure {args.figure}: cannot be written: {reason}") from None
            print(args.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
