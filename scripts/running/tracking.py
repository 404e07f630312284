"""W&B: imported only when a run is tracked, never needed by anything downstream."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scripts.records.errors import UserError
from scripts.records.record import digest

if TYPE_CHECKING:
    import wandb

Log = Callable[[Mapping[str, Any]], None]
Mode = Literal["online", "offline", "disabled"]
MODES = ("auto", "online", "offline", "disabled")
IN_SUMMARY = (
    *("best_epoch", "train_seconds", "eval_seconds", "targets_per_second", "peak_rss_mib"),
    *("num_parameters", "state_bytes", "state_bytes_per_param"),
)


def tracking_mode(wanted: str) -> Mode:
    """How ``tracker.mode`` is tracked.

    ``WANDB_MODE`` decides in ``auto`` mode, if it is set; else whether there is a key.

    Raises:
        UserError: W&B is asked for and is not installed, or has no key to go online with.
    """
    key = "tracker.mode"
    if wanted == "auto" and (theirs := os.environ.get("WANDB_MODE")):
        key, wanted = "WANDB_MODE", theirs
    wanted = {"run": "online", "dryrun": "offline"}.get(wanted, wanted)  # W&B's older words
    if wanted not in MODES:
        raise UserError(f"{key} must be one of {', '.join(MODES)}, got {wanted!r}")
    if wanted == "disabled":
        return "disabled"
    if not _installed():
        if wanted != "auto":
            raise UserError(f"{key}={wanted} needs W&B: pip install '.[wandb]', or use disabled")
        _hint_to_install()
        return "disabled"
    if wanted != "offline" and _has_key():
        return "online"
    if wanted == "online":
        raise UserError(f"{key}=online needs a W&B key: `wandb login`, or use auto")
    return "offline"


@contextmanager
def tracked(
    mode: Mode, config: Mapping[str, Any], start: Mapping[str, Any], path: Path, name: str
) -> Iterator[tuple[Log, Log]]:
    """(log an epoch, log the record) of a run; both do nothing when tracking is disabled.

    Args:
        mode: as ``tracking_mode`` gives it.
        start: what the run's record holds before any training.
        path: where the record will be.
        name: what W&B calls the run, if ``WANDB_NAME`` does not say.
    """
    if mode == "disabled":
        yield _nothing, _nothing
        return
    from wandb import Artifact

    run = _open(mode, config, start, path, name)

    def log(entry: Mapping[str, Any]) -> None:
        if entry["epoch"] >= run.step:  # W&B has the earlier ones of a run that goes on
            run.log(dict(entry), step=entry["epoch"], commit=True)

    def log_record(record: Mapping[str, Any]) -> None:
        for split in ("valid", "test"):  # of the best epoch
            run.summary.update({f"{split}/{k}": v for k, v in record[split].items()})
        run.summary.update({key: record[key] for key in IN_SUMMARY})
        copy = shutil.copy(path, Path(run.settings.sync_dir) / "record.json")
        artifact = Artifact(f"record-{run.id}", type="record")
        artifact.add_file(str(copy), policy="immutable")  # else W&B copies it into HOME
        run.log_artifact(artifact)

    try:
        yield log, log_record
    except BaseException:
        run.finish(exit_code=1)  # `with run` would print a traceback
        raise
    run.finish()


def _open(
    mode: Mode, config: Mapping[str, Any], start: Mapping[str, Any], path: Path, name: str
) -> "wandb.Run":
    """The W&B run of a run: the same one however often the run is killed and goes on.

    What the environment and W&B's own settings say comes before our defaults.
    """
    import wandb

    theirs = _settings()
    settings, dataset = config["tracker"], start["dataset"]
    ours = (dataset, start["model"], start["optimizer"])
    replaced = path.stat().st_mtime_ns if path.exists() else 0  # to train again is another run
    arguments = {
        "project": settings["project"] or theirs.project or "simba",
        "entity": settings["entity"],
        "dir": os.environ.get("WANDB_DIR") or config["results"]["root"],
        "name": theirs.run_name or name,
        "group": theirs.run_group or f"{dataset}-{start['experiment']}",
        "tags": [*settings["tags"], *ours] if settings["tags"] else theirs.run_tags or ours,
        "id": theirs.run_id or digest([str(path.resolve()), start["config_hash"], replaced]),
        "resume": theirs.resume or "allow",
        "config": {
            **config,
            "dataset": dataset,
            "variant": start["optimizer"],
            "experiment": start["experiment"],
            "config_hash": start["config_hash"],
        },
    }
    why = ""
    try:
        run = wandb.init(mode=mode, **arguments)
    except wandb.Error as error:
        if mode == "offline":
            raise
        why = f" ({' '.join(str(error).split())})"
        wandb.teardown()  # it holds the id of the run that was not opened
        run = wandb.init(mode="offline", **arguments)
    folder = run.settings.sync_dir
    offline = f"offline{why} in {folder}; to upload it: wandb sync {shlex.quote(folder)}"
    print(f"W&B: {offline if run.offline else run.url}", file=sys.stderr)
    return run


def _installed() -> bool:
    try:
        from wandb import init  # noqa: F401  (a folder `wandb` of runs is a package, too)
    except ImportError:
        return False
    return True


@cache
def _hint_to_install() -> None:
    print("W&B is not installed: no tracking (pip install '.[wandb]' to track)", file=sys.stderr)


def _settings() -> "wandb.Settings":
    """What the environment and W&B's files of settings say."""
    import wandb

    os.environ.setdefault("WANDB_INIT_TIMEOUT", "30")  # seconds until a run goes on offline
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        return wandb.setup().settings
    except ValueError as error:  # pydantic's, with a link in its last line
        raise UserError(f"W&B: {' '.join(str(error).split()[:-5])}") from None


def _has_key() -> bool:
    import wandb

    _settings()
    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        raise UserError(f"W&B: {' '.join(str(error).split())}") from None


def _nothing(values: Mapping[str, Any]) -> None:
    pass
