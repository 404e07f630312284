"""The runs of one command: trained one after the other, or jointly where that is possible."""

import os
import sys
from contextlib import ExitStack
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from torch import optim

from scripts.records.errors import RunFailed, UserError
from scripts.records.torchrun import is_leader
from scripts.running.config import one_line
from scripts.running.joint import JointTraining, joint_key
from scripts.running.launchers import chosen_plugins, require_builtin
from scripts.running.progress import bar, in_sweep_process, send
from scripts.running.run import Follower, Run, open_run
from scripts.running.workers import ERRORS, SingleWorkerError, Workers, out_of_memory_as_user_error
from simba import SignOptimizer

ELEMENTWISE = (  # torch's optimizers that step each coordinate alone; others are not known to
    *(optim.Adadelta, optim.Adagrad, optim.Adam, optim.AdamW, optim.Adamax, optim.ASGD),
    *(optim.NAdam, optim.RAdam, optim.RMSprop, optim.Rprop, optim.SGD),
)


class CommandRuns:
    """Trains the runs of one command. Runs that can be trained jointly wait until ``finish``.

    Hydra calls ``run`` once for each run, in this process or in processes that a launcher starts;
    each of these has its own copy.

    Args:
        workers: those that train each run; all of them go through the same runs.
    """

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.code = 0  # of the runs so far
        self.waiting: list[Run] = []
        self.locks = ExitStack()

    def run(self, cfg: DictConfig) -> float | None:
        """Train the run of a config and return its best NDCG@10 on validation.

        Returns None if the run waits for the joint training, another process trains it, or it has
        failed. A failure is printed to stderr, and the sweep's other runs follow.

        Raises:
            UserError, DataError, RunFailed: the run failed, and a launcher or sweeper plugin
                started it, which must get the error.
            SystemExit: the run failed in a command with one run, or on one torchrun worker.
        """
        hydra = HydraConfig.get()
        os.chdir(hydra.runtime.cwd)  # a launcher's processes may start in another folder
        try:
            if self.workers.has_process_group:
                require_builtin(hydra)
            return self._run(cfg)
        except ERRORS as error:
            self.code = max(self.code, print_error(error))
            send_run_ended(trained=True)
            if hydra.mode == RunMode.RUN or isinstance(error, SingleWorkerError):
                raise SystemExit(self.code) from None  # Hydra would add a line of its own
            if chosen_plugins(hydra):
                raise
            return None

    def _run(self, cfg: DictConfig) -> float | None:
        with ExitStack() as lock:
            with out_of_memory_as_user_error():
                opened = open_run(cfg, lock, self.workers)
            if isinstance(opened, Run) and trains_jointly(opened, self.workers):
                self.waiting.append(opened)
                self.locks.push(lock.pop_all())
                return None
            trained = isinstance(opened, Run | Follower)
            record = self._complete(opened) if isinstance(opened, Run | Follower) else opened
            if record is None:
                return None
            send_run_ended(trained)
            return float(record["valid"]["NDCG@10"])

    def _complete(self, run: Run | Follower) -> dict[str, Any]:
        """Train and test a run; returns its record.

        Raises:
            SingleWorkerError: a UserError on this worker alone.
        """
        try:
            with out_of_memory_as_user_error():
                return run.complete()
        except UserError as error:
            if self.workers.count == 1:
                raise
            raise SingleWorkerError(f"worker {self.workers.rank}: {error}") from None

    def finish(self) -> int:
        """Train the waiting runs jointly; returns the exit code."""
        with self.locks:
            groups: dict[str, list[Run]] = {}
            for run in self.waiting:
                groups.setdefault(joint_key(run.training.config), []).append(run)
            for runs in groups.values():
                try:
                    with out_of_memory_as_user_error():
                        code = train_jointly(runs)
                except ERRORS as error:
                    code = print_error(error)
                self.code = max(self.code, code)
        return self.code


def trains_jointly(run: Run, workers: Workers) -> bool:
    """Whether a run trains together with others. If ``joint`` is null, it does on a GPU only.

    These train alone: a run with diagnostics, which records each step; a run on several workers or
    under another launcher or sweeper; and, because a joint training has all tensors of a run in
    one, a run with corrupted gradients, or with an optimizer whose step is not elementwise, such as
    a variant with per-tensor state.

    Raises:
        UserError: ``joint=true`` together with a launcher or sweeper plugin.
    """
    joint: bool | None = run.training.config["joint"]
    plugins = chosen_plugins(HydraConfig.get())
    if joint and plugins:
        raise UserError(f"joint=true trains all runs in one process; remove {plugins[0]}")
    optimizer = run.training.optimizer
    if isinstance(optimizer, SignOptimizer):
        elementwise = not optimizer.variant.has_per_tensor_state
    else:
        elementwise = type(optimizer) in ELEMENTWISE
    alone = run.training.diagnostics or run.training.corruption or workers.has_process_group
    if alone or not elementwise or plugins:
        return False
    return run.training.device.type != "cpu" if joint is None else joint


def train_jointly(runs: list[Run]) -> int:
    """Train runs of one ``joint_key`` jointly; returns the exit code.

    All epochs are trained jointly; then each run is tested and recorded by itself.
    """
    joint: JointTraining | None = None
    active: list[Run] = []
    code, epochs = 0, runs[0].training.config["epochs"]
    for epoch in bar(iterable=range(1, epochs + 1), desc=f"{len(runs)} runs", unit="epoch"):
        due = [r for r in runs if len(r.training.history) == epoch - 1]
        due = [r for r in due if not r.training.out_of_patience()]
        if due != active:
            if joint:
                for i in range(len(active)):
                    joint.write_back(i)
            active, joint = due, JointTraining([run.training for run in due]) if due else None
        if joint is None:
            continue
        evaluated = []
        for i, loss in enumerate(joint.train_epoch(epoch)):
            run = active[i]
            try:
                if run.training.end_epoch(epoch, loss):
                    joint.write_back(i)
                    evaluated.append(run)
            except RunFailed as failure:
                code = max(code, print_error(run.record_failure(failure)))
                runs.remove(run)
        for run in evaluated:
            try:
                with run.trace:
                    run.save()
            except ERRORS as error:
                code = max(code, print_error(error))
                runs.remove(run)
    for run in runs:
        try:
            with run.trace:
                run.complete()
        except ERRORS as error:
            code = max(code, print_error(error))
    return code


def send_run_ended(trained: bool) -> None:
    """Tell the sweep's supervisor, if there is one, that a run has ended."""
    if in_sweep_process():
        send(run=HydraConfig.get().job.num, trained=trained)


def print_error(error: Exception) -> int:
    """Print an error in one line, with its notes, once per process. If all of torchrun's workers
    have the same error, the leader alone prints it.

    Returns:
        The exit code: 1 for a failed training, 2 for an error that the user can correct.
    """
    single = isinstance(error, SingleWorkerError)
    if (single or is_leader()) and getattr(error, "reported_in", None) != os.getpid():
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        print(f"error: {one_line(error)}{notes}", file=sys.__stderr__ if single else sys.stderr)
        error.reported_in = os.getpid()  # type: ignore[attr-defined]
    return 1 if isinstance(error, RunFailed) else 2
