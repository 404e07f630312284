"""Train one model and write one record: ``python -m scripts.train --help``."""

import os
import sys

from scripts.records.stopping import stoppable


@stoppable("interrupted; the same command resumes from the last evaluation")
def main() -> int:
    """Train the run or the sweep of the command line; returns the exit code."""
    import hydra  # slow imports are here, where ``stoppable`` handles a signal
    from hydra.errors import HydraException
    from omegaconf import DictConfig

    from scripts.records.errors import UserError
    from scripts.records.files import cannot_write
    from scripts.records.torchrun import is_leader, started_by_torchrun
    from scripts.running.checkout_simba import require_checkout_simba
    from scripts.running.config import CONFIGS, is_user_error
    from scripts.running.launchers import as_user_error

    try:
        require_checkout_simba()
    except UserError as error:
        if is_leader():
            print(f"error: {error}", file=sys.stderr)
        return 2
    from scripts.running.command_runs import CommandRuns, print_error
    from scripts.running.plan import require_builtin_launcher
    from scripts.running.workers import ERRORS, Workers, process_group

    def train(workers: Workers) -> int:
        runs, code = CommandRuns(workers), 0

        @hydra.main(version_base="1.3", config_path=CONFIGS, config_name="train")
        def task(cfg: DictConfig) -> float | None:
            return runs.run(cfg)

        try:
            task()
        except ERRORS as error:  # a launcher plugin raises that of the first failed run
            code = print_error(error)
        return max(code, runs.finish())

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here instead of being printed
    try:
        if started_by_torchrun():
            require_builtin_launcher(sys.argv[1:])
        with process_group() as workers:
            return train(workers)
    except SystemExit as stop:
        return int(stop.code or 0)
    except Exception as error:
        if translated := as_user_error(error):
            return print_error(translated)
        if isinstance(error, OSError) and not isinstance(error, HydraException):
            # Hydra cannot write a file, such as multirun.yaml
            return print_error(cannot_write(error.filename or "results.root", error))
        if is_user_error(error):
            return print_error(error)
        raise


if __name__ == "__main__":
    sys.exit(main())
