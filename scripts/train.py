"""Train one model and write one record: ``python -m scripts.train --help``."""

import os
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from data.errors import DataError
from data.prepare import dataset_name, prepare, statistics
from scripts import run_record
from scripts.config import checked, choices, swept_keys
from scripts.errors import ConfigError, RunFailed
from scripts.together import Program, common
from scripts.tracking import tracked
from scripts.training import Training
from simba import SignOptimizer

exit_codes = [0]  # of the runs of this process; the worst one is its own
claims = ExitStack()
waiting: list["Run"] = []  # runs to be trained together


@dataclass
class Run:
    """A training and where it goes."""

    names: dict[str, str]
    training: Training
    path: Path  # of the record
    checkpoint: Path
    start: dict[str, Any]  # what a record holds before any training
    label: str

    def together(self) -> bool:
        """Whether it trains in one program with others: as asked for, else on a GPU.

        A diagnosed run looks at its optimizer step by step, and so trains alone. So does a variant
        that keeps a scale or noise of each tensor: a program has all tensors of a run in one.
        """
        optimizer = self.training.optimizer
        by_tensor = isinstance(optimizer, SignOptimizer) and optimizer.variant.by_tensor
        if self.training.diagnosis or by_tensor:
            return False
        wanted: bool | None = self.training.config["together"]
        return self.training.device.type != "cpu" if wanted is None else wanted

    def complete(self) -> None:
        """Train, test and write the record.

        Raises:
            RunFailed: the loss is NaN; the record then says so.
        """
        with tracked(self.training.config, self.names, self.label) as (log, summarize):
            try:
                for entry in self.training.history:  # of a checkpoint or a joint program
                    log(entry)
                self.training.fit(self.checkpoint, self.start["config_hash"], log, self.label)
            except RunFailed as failure:
                raise self.failed(failure) from None
            record = {**self.start, **self.training.summary(), **self.training.test()}
            run_record.write(self.path, record)
            self.checkpoint.unlink(missing_ok=True)
            summarize({f"test/{key}": value for key, value in record["test"].items()})
            summarize({"best_epoch": record["best_epoch"]})
        tqdm.write(f"{self.path}: {headline(record)}", file=sys.stderr)

    def failed(self, failure: RunFailed) -> RunFailed:
        """Write the record of a failure; the failure with the record's name."""
        failed = {"status": "failed", "error": str(failure)}
        run_record.write(self.path, {**self.start, **self.training.summary(), **failed})
        return RunFailed(f"{self.path}: {failure}")


def open_run(cfg: DictConfig, claim: ExitStack) -> Run | None:
    """The run of a config, claimed; None if it is finished or another process is at it."""
    config, names = checked(cfg), choices()
    device = pick_device(config["device"])
    prepared = prepare(config["data"])
    dataset = dataset_name(prepared.path.stem if names["data"] == "file" else names["data"])
    identity = run_record.identity(config, prepared.sha256)
    name = config["results"]["name"] or (
        f"{names['experiment']}-{names['model']}{swept_keys(sys.argv[1:])}-seed{config['seed']}"
    )
    root = Path(config["results"]["root"])
    path = root / "runs" / dataset / names["optimizer"] / f"{name}.json"
    work = root / "checkpoints" / dataset / names["optimizer"]
    if not claim.enter_context(run_record.claimed(work / f"{name}.lock")):
        print(f"{path}: another process is at it, skipped", file=sys.stderr)
        return None
    if is_finished(path, identity, config["force"]):
        print(f"{path}: finished already, skipped", file=sys.stderr)
        return None
    start = {
        "status": "finished",
        "dataset": dataset,
        **{key: names[key] for key in ("model", "optimizer", "experiment")},
        "seed": config["seed"],
        "command": rerun_command(name),
        "config": identity,
        "config_hash": run_record.digest(identity),
        **run_record.provenance(device),
        "data": {
            "sha256": prepared.sha256,
            **statistics(prepared.sequences),
            "understood": prepared.understood,
        },
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    training = Training(config, prepared.sequences, device)
    training.resume(work / f"{name}.pt", start["config_hash"])
    label = f"{dataset}-{names['optimizer']}-{name}"
    return Run(names, training, path, work / f"{name}.pt", start, label)


def train_together(runs: list[Run]) -> None:
    """All epochs of runs that share all but optimizer and seed; then each completes itself."""
    program: Program | None = None
    going: list[Run] = []
    epochs = runs[0].training.config["epochs"]
    for epoch in tqdm(range(1, epochs + 1), desc=f"{len(runs)} runs", unit="epoch", disable=None):
        due = [r for r in runs if len(r.training.history) == epoch - 1]
        due = [r for r in due if not r.training.out_of_patience()]
        if due != going:
            if program:
                for i in range(len(going)):
                    program.write_back(i)
            going, program = due, Program([run.training for run in due]) if due else None
        if program is None:
            continue
        evaluated = []
        for i, loss in enumerate(program.train_epoch(epoch)):
            run = going[i]
            try:
                if run.training.end_epoch(epoch, loss):
                    program.write_back(i)
                    evaluated.append(run)
            except RunFailed as failure:
                exit_codes.append(report(run.failed(failure)))
                runs.remove(run)
        for run in evaluated:
            run.training.save(run.checkpoint, run.start["config_hash"])
    for run in runs:
        try:
            run.complete()
        except (ConfigError, RunFailed) as error:  # the others are complete all the same
            exit_codes.append(report(error))


def is_finished(path: Path, identity: Mapping[str, Any], force: bool) -> bool:
    """Whether the record at ``path`` is this very run's, so that it can be skipped.

    Raises:
        ConfigError: there is a finished record of another config and no ``force``.
    """
    if force or not path.exists():
        return False
    record = run_record.read(path)
    if record["status"] != "finished":
        return False
    changed = run_record.differences(record["config"], identity)
    if changed:
        raise ConfigError(
            f"{path} holds a finished run of another config ({'; '.join(changed)}); "
            "force=true replaces it, results.name=NAME or results.root=DIR keeps both"
        )
    return True


def rerun_command(name: str) -> str:
    """A command line that does this run again."""
    overrides = HydraConfig.get().overrides.task
    dropped = ("results.root", "results.name", "data.root", "tracker.mode", "force", "device")
    kept = [o for o in overrides if o.split("=")[0].lstrip("+") not in dropped]
    kept.append(f"results.name={name}" if "=" not in name else f"results.name='{name}'")
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()}"  # another number may round otherwise
    return f"{threads} {shlex.join(['python', '-m', 'scripts.train', *kept])}"


def pick_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: torch finds no GPU; use device=cpu or auto")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def headline(record: Mapping[str, Any]) -> str:
    test = record["test"]
    return (
        f"HR@10 {test['HR@10']:.4f}, NDCG@10 {test['NDCG@10']:.4f}, best epoch "
        f"{record['best_epoch']}, loss {record['history'][-1]['train/loss']:.4f}"
    )


def report(error: Exception) -> int:
    """Print one line, return the exit code: 1 for a failed training, 2 for a user's mistake."""
    line = " ".join(str(error).split("Config search path")[0].split())
    print(f"error: {line}", file=sys.stderr)
    return 1 if isinstance(error, RunFailed) else 2


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def hydra_main(cfg: DictConfig) -> None:
    try:
        with ExitStack() as claim:
            run = open_run(cfg, claim)
            if run and run.together():
                waiting.append(run)
                claims.push(claim.pop_all())
            elif run:
                run.complete()
    except (ConfigError, DataError, RunFailed) as error:  # the sweep's other runs go on
        exit_codes.append(report(error))


def main() -> int:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here instead of being printed
    try:
        with claims:
            hydra_main()
            alike: dict[str, list[Run]] = {}
            for run in waiting:
                alike.setdefault(common(run.training.config), []).append(run)
            for runs in alike.values():
                train_together(runs)
    except (HydraException, OmegaConfBaseException, ConfigError) as error:
        exit_codes.append(report(error))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last evaluation", file=sys.stderr)
        return 130
    return max(exit_codes)


if __name__ == "__main__":
    sys.exit(main())
