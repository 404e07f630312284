"""Train one model and write one record: ``python -m scripts.train --help``."""

import os
import sys
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from scripts.running.sweep import ERRORS, Sweep, report

CONFIGS = str(Path(__file__).resolve().parent.parent / "configs")


def main() -> int:
    """Train the run or the sweep of the command line; returns the exit code."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here instead of being printed
    sweep, code = Sweep(), 0

    @hydra.main(version_base="1.3", config_path=CONFIGS, config_name="train")
    def task(cfg: DictConfig) -> float | None:
        return sweep.run(cfg)

    try:
        try:
            task()
        except ERRORS as error:  # of the first run that failed
            code = report(error)
        return max(code, sweep.finish())
    except SystemExit as stop:
        return int(stop.code or 0)
    except (HydraException, OmegaConfBaseException) as error:
        return report(error)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last evaluation", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
