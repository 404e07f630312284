"""W&B: imported only when a run is tracked, never needed by anything downstream."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Log = Callable[[dict[str, Any]], Any]


@contextmanager
def tracked(
    config: Mapping[str, Any], names: Mapping[str, str], run_name: str
) -> Iterator[tuple[Log, Log]]:
    """(log an epoch, set the summary); both do nothing when tracking is disabled.

    ``WANDB_MODE`` decides in ``auto`` mode, if it is set.
    """
    settings = config["tracker"]
    mode = settings["mode"]
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE", "auto")
    if mode in ("disabled", "dryrun"):
        yield _nothing, _nothing
        return

    import wandb

    if mode == "auto":
        mode = "online" if _has_key() else "offline"
        if mode == "offline":
            print("W&B: no key, tracking offline (`wandb login` to go online)", file=sys.stderr)
    elif mode == "online" and not _has_key():
        from scripts.records.errors import UserError

        raise UserError("tracker.mode=online needs a W&B key: `wandb login`, or use auto")
    root = config["results"]["root"]
    os.makedirs(root, exist_ok=True)
    with wandb.init(
        project=settings["project"],
        entity=settings["entity"],
        mode=mode,
        dir=root,
        name=run_name,
        group=f"{names['data']}-{names['experiment']}",
        tags=[*settings["tags"], names["data"], names["model"], names["optimizer"]],
        config=dict(config),
        settings=wandb.Settings(silent=True),
    ) as run:
        run.define_metric("epoch")
        run.define_metric("train/*", step_metric="epoch")
        run.define_metric("valid/*", step_metric="epoch")
        run.define_metric("valid/NDCG@10", step_metric="epoch", summary="max")
        yield run.log, run.summary.update


def _has_key() -> bool:
    import wandb

    return bool(wandb.login(prompt=False))


def _nothing(values: dict[str, Any]) -> None:
    pass
