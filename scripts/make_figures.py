"""Draw the figures from the CSV files, as PNG and PDF: ``python -m scripts.make_figures``.

Below ``root/figures``, for each study: curves-STUDY, rates-STUDY for the experiment ``lr``,
why-STUDY and memories-STUDY where a run was diagnosed, and note, where the study is in the note's
own setting.
"""

import io
import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from scripts import plots
from scripts.aggregate import load
from scripts.command_line import parser, results_root
from scripts.errors import ConfigError
from scripts.run_record import atomically
from scripts.studies import STUDY, compared, is_notes, of_study, swept
from scripts.tables import looked_at_memories


def make_figures(root: Path) -> list[Path]:
    """Draw all figures; returns their paths.

    Raises:
        ConfigError: a CSV file is missing.
    """
    runs, _, looks = load(root)
    written = []
    for name, figure in figures(runs, looks).items():
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            path = root / "figures" / f"{name}.{kind}"
            picture = io.BytesIO()
            figure.savefig(picture, format=kind, dpi=110, metadata=metadata)
            atomically(path, picture.getvalue())
            written.append(path)
    return written


def figures(runs: pd.DataFrame, looks: pd.DataFrame) -> dict[str, Figure]:
    made = {}
    coloured = plots.COLOURS.keys()
    runs, looks = (frame[frame["optimizer"].isin(coloured)] for frame in (compared(runs), looks))
    for key, study in runs.groupby(STUDY):
        keys = tuple(map(str, key))
        name = "-".join(keys)
        if swept(study):
            made[f"rates-{name}"] = plots.rates(study)
            continue
        made[f"curves-{name}"] = plots.learning_curves(study, note=is_notes(keys, study))
        if is_notes(keys, study):
            made["note"] = plots.beside_the_note(study)
        if len(looked := of_study(looks, keys)):
            made[f"why-{name}"] = plots.why(looked)
        if looked_at_memories(looked):
            made[f"memories-{name}"] = plots.memories(looked)
    return made


def main(argv: list[str] | None = None) -> int:
    args = parser("scripts.make_figures", __doc__).parse_args(argv)
    try:
        for path in make_figures(results_root(args.overrides)):
            print(path)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
