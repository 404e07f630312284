"""W&B: imported only when a run is tracked, never needed by anything downstream.

An invalid setting is an error before a training. Once the training has started, no failure of W&B
can end it, because every call goes through ``Guard``.
"""

import logging
import os
import shlex
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scripts.records.errors import UserError
from scripts.records.record import digest

if TYPE_CHECKING:
    import wandb

Log = Callable[[Mapping[str, Any]], None]
Mode = Literal["online", "offline", "disabled"]
MODES = ("auto", "online", "offline", "disabled")
CALL_SECONDS = 300.0  # seconds for a call; without a network, W&B itself tries for days
IN_SUMMARY = (
    *("best_epoch", "train_seconds", "eval_seconds", "targets_per_second", "peak_rss_mib"),
    *("num_parameters", "state_bytes", "state_bytes_per_param"),
)


def tracking_mode(tracker: Mapping[str, Any]) -> Mode:
    """The mode in which a run is tracked.

    ``WANDB_MODE`` decides in ``auto`` mode, if it is set; else whether there is a key.

    Args:
        tracker: the config's section ``tracker``.

    Raises:
        UserError: W&B is asked for but not installed; online mode has no API key; or W&B refuses a
            setting of the config, the environment or its own files.
    """
    key, mode = "tracker.mode", tracker["mode"]
    if mode == "auto" and (from_environment := os.environ.get("WANDB_MODE")):
        key, mode = "WANDB_MODE", from_environment
    mode = {"run": "online", "dryrun": "offline"}.get(mode, mode)  # W&B's older words
    if mode not in MODES:
        raise UserError(f"{key} must be one of {', '.join(MODES)}, got {mode!r}")
    if mode == "disabled":
        return "disabled"
    if not _installed():
        if mode != "auto":
            raise UserError(f"{key}={mode} needs W&B: pip install '.[wandb]', or use disabled")
        _hint_to_install()
        return "disabled"
    _before_training(_settings)
    _before_training(partial(_check, tracker))
    if mode != "offline" and _before_training(_has_key):
        return "online"
    if mode == "online":
        raise UserError(f"{key}=online needs a W&B API key: `wandb login`, or use auto")
    return "offline"


@contextmanager
def tracked(
    mode: Mode, config: Mapping[str, Any], initial: Mapping[str, Any], path: Path, name: str
) -> Iterator[tuple[Log, Log]]:
    """Track a run. Yields two functions: to log an epoch, and to log the record.

    Both do nothing if tracking is disabled.

    Args:
        mode: as ``tracking_mode`` gives it.
        initial: the result of ``initial_record``.
        path: where the record will be.
        name: what W&B calls the run, if ``WANDB_NAME`` does not say.
    """
    guard = Guard()
    run = None if mode == "disabled" else guard(_open, mode, config, initial, path, name)
    if run is None:
        yield _nothing, _nothing
        return
    try:
        yield partial(guard, _log, run), partial(guard, _log_record, run, path)
    except BaseException:
        guard(run.finish, exit_code=1)  # `with run` would print a traceback
        raise
    guard(run.finish)


class Guard:
    """Calls W&B until a call fails. It then prints the error in one line and makes no more calls.

    A call that takes longer than ``CALL_SECONDS`` has failed.
    """

    def __init__(self) -> None:
        self.failed = False

    def __call__(self, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        if self.failed:
            return None
        late = threading.Event()
        timer = threading.Timer(CALL_SECONDS, _kill_service, [late])
        timer.daemon = True
        timer.start()
        try:
            return function(*arguments, **more)
        except Exception as error:
            self.failed = True
            reason = f"no answer in {CALL_SECONDS:.0f} seconds" if late.is_set() else _reason(error)
            _abandon()  # before the print: W&B may still redirect stderr
            line = f"W&B: failed ({reason}); the run continues without it, its record is the same"
            print(line, file=sys.stderr)
            return None
        finally:
            timer.cancel()


def _log(run: "wandb.Run", entry: Mapping[str, Any]) -> None:
    if entry["epoch"] >= run.step:  # W&B has the earlier ones of a resumed run
        run.log(dict(entry), step=entry["epoch"], commit=True)


def _log_record(run: "wandb.Run", path: Path, record: Mapping[str, Any]) -> None:
    from wandb import Artifact

    for split in ("valid", "test"):  # of the best epoch
        run.summary.update({f"{split}/{k}": v for k, v in record[split].items()})
    run.summary.update({key: record[key] for key in IN_SUMMARY})
    copy = shutil.copy(path, Path(run.settings.sync_dir) / "record.json")
    artifact = Artifact(f"record-{run.id}", type="record")
    artifact.add_file(str(copy), policy="immutable")  # else W&B copies it into HOME
    run.log_artifact(artifact)


def _open(
    mode: Mode, config: Mapping[str, Any], initial: Mapping[str, Any], path: Path, name: str
) -> "wandb.Run":
    """The W&B run of a run: the same one however often the run is killed and resumed.

    The environment and W&B's own settings override our defaults.
    """
    import wandb

    wandb_settings = _settings()
    settings, dataset = config["tracker"], initial["dataset"]
    default_tags = (dataset, initial["model"], initial["optimizer"])
    # The time of a record that will be replaced: training it again is another W&B run.
    replaced = path.stat().st_mtime_ns if path.exists() else 0
    arguments = {
        "project": settings["project"] or wandb_settings.project or "simba",
        "entity": settings["entity"],
        "dir": os.environ.get("WANDB_DIR") or config["results"]["root"],
        "name": wandb_settings.run_name or name,
        "group": wandb_settings.run_group or f"{dataset}-{initial['experiment']}",
        "tags": [*settings["tags"], *default_tags]
        if settings["tags"]
        else wandb_settings.run_tags or default_tags,
        "id": wandb_settings.run_id
        or digest([str(path.resolve()), initial["config_hash"], replaced]),
        "resume": wandb_settings.resume or "allow",
        "config": {
            **config,
            "dataset": dataset,
            "variant": initial["optimizer"],
            "experiment": initial["experiment"],
            "config_hash": initial["config_hash"],
        },
    }
    why = ""
    try:
        run = wandb.init(mode=mode, **arguments)
    except wandb.Error as error:
        if mode == "offline":
            raise
        why = f" ({_reason(error)})"
        _abandon()  # W&B's service holds the id of the run that was not opened
        run = wandb.init(mode="offline", **arguments)
    folder = run.settings.sync_dir
    offline = f"offline{why} in {folder}; to upload it: wandb sync {shlex.quote(folder)}"
    print(f"W&B: {offline if run.offline else run.url}", file=sys.stderr)
    return run


def _abandon() -> None:
    """End W&B's run and its service, whatever state they are in; at exit they print tracebacks."""
    import wandb

    for end in (wandb.finish, wandb.teardown):
        with suppress(Exception, SystemExit):
            end(exit_code=1)
    wandb.run = None  # W&B does not reset it if its service is dead, and wandb.login then fails


def _kill_service(late: threading.Event) -> None:
    """Kill W&B's service, so that the call that waits for it fails."""
    import wandb

    late.set()
    with suppress(Exception):  # no service, or one that another process has started
        wandb.setup().assert_service()._proc._process.kill()  # type: ignore[union-attr]


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

    os.environ.setdefault("WANDB_INIT_TIMEOUT", "30")  # seconds until a run continues offline
    os.environ.setdefault("WANDB_SILENT", "true")
    if not os.access(os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME", ""), os.W_OK):
        folder = os.path.join(tempfile.gettempdir(), f"wandb-{os.getuid()}")
        os.environ.setdefault("WANDB_CACHE_DIR", folder)  # else W&B writes its log to stderr
    logging.raiseExceptions = False  # else a traceback for each line of W&B's log on a full disk
    for name in ("asyncio", "opentelemetry"):  # else a line for each write to a dead service
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return wandb.setup().settings


def _check(tracker: Mapping[str, Any]) -> None:
    import wandb

    wandb.Settings(project=tracker["project"], entity=tracker["entity"])


def _has_key() -> bool:
    import wandb

    return wandb.login(prompt=False, verify=False)


def _before_training(ask: Callable[[], Any]) -> Any:
    """Ask W&B for what a user has set.

    Raises:
        UserError: W&B rejects a setting.
    """
    try:
        return ask()
    except Exception as error:
        advice = "correct this W&B setting, or set tracker.mode=disabled"
        raise UserError(f"W&B: {_reason(error)}; {advice}") from None


def _reason(error: Exception) -> str:
    """An error in one line, without the link that pydantic adds."""
    lines = [line for line in str(error).splitlines() if "For further information" not in line]
    return " ".join(" ".join(lines).split()) or type(error).__name__


def _nothing(values: Mapping[str, Any]) -> None:
    pass
