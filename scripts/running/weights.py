"""The weights of a run's best epoch, which ``save_best=true`` keeps beside its record."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.records.errors import UserError
from scripts.records.run_files import weights_of
from scripts.running import checkpoint

FORMAT = b"simba weights 1\n"
RETRAIN = "train it again: {command} save_best=true force=true results.root=results/reproduced"


def save(path: Path, record: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write the weights of a record's best epoch.

    Args:
        path: the path of the record.
        state: the model's state dict.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    content = {"hash": record["config_hash"], "epoch": record["best_epoch"], "model": dict(state)}
    checkpoint.save(weights_of(path), content, FORMAT)


def load(path: Path, record: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    """The state dict of a record's best epoch.

    Args:
        path: the path of the record.

    Raises:
        UserError: there are no weights, they are damaged, or they belong to another run.
    """
    file, retrain = weights_of(path), RETRAIN.format(command=record["command"])
    try:
        content = checkpoint.load(file, device, FORMAT)
    except FileNotFoundError:
        raise UserError(f"{file}: the run kept no weights; {retrain}") from None
    except checkpoint.Unusable as error:
        raise UserError(f"{error}; {retrain}") from None
    if (content["hash"], content["epoch"]) != (record["config_hash"], record["best_epoch"]):
        raise UserError(f"{file}: the weights of another run; {retrain}")
    return content["model"]
