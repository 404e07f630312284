"""Checks of a composed config, before anything is fetched, trained or written."""

import math
import os
import traceback
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.errors import DataError
from scripts.records.errors import UserError
from scripts.records.record import LARGEST_INTEGER
from scripts.records.torchrun import started_by_torchrun
from scripts.running.tracking import MODES

CONFIGS = str(Path(__file__).resolve().parents[2] / "configs")
GRADIENTS = ("float32", "ternary", "sign")
EXTRAS = {  # plugins of Hydra, and the extra of pyproject.toml that installs each
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/ray": "ray",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/sweeper/optuna": "optuna",
}


@dataclass
class ResultsConfig:
    root: str = "results"
    name: str | None = None


@dataclass
class TrackerConfig:
    mode: str = "auto"
    project: str | None = None
    entity: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class TrainConfig:
    """The types of the keys of configs/train.yaml, which sets their values."""

    data: Any = None
    model: Any = None
    optimizer: Any = None
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    seed: int = 0
    epochs: int = 1
    batch_size: int = 1
    negatives: int = 1
    eval_every: int = 1
    patience: int | None = None
    max_grad_norm: float | None = None
    corrupt: str | None = None
    ks: list[int] = field(default_factory=list)
    mask_seen: str = "others"
    device: str = "auto"
    joint: bool | None = None
    gradients: str = "float32"
    workers: int | None = None
    force: bool = False
    save_best: bool = False
    diagnose_every: int | None = None
    study: Any = None
    results: ResultsConfig = field(default_factory=ResultsConfig)


def checked(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config as plain values.

    If workers exchange votes and ``workers`` is null, ``workers`` becomes torchrun's WORLD_SIZE.

    Raises:
        UserError: a value has the wrong type or is out of its range.
    """
    _require_all(cfg, TrainConfig)
    _require_all(cfg["results"], ResultsConfig, "results.")
    _require_all(cfg["tracker"], TrackerConfig, "tracker.")
    try:
        typed = OmegaConf.merge(OmegaConf.structured(TrainConfig), cfg)
        plain = OmegaConf.to_container(typed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        if "is not a ListConfig" in reason:
            reason = f"must be a list: {error.full_key}=[A,B]"
        raise UserError(f"{error.full_key}: {reason}" if error.full_key else reason) from None
    assert isinstance(plain, dict)
    config = {str(key): value for key, value in plain.items()}
    for key in ("epochs", "batch_size", "negatives", "eval_every"):
        _require(config[key] >= 1, key, config[key], "an integer >= 1")
        _require(config[key] <= LARGEST_INTEGER, key, config[key], "an integer < 2**63")
    expected = "an integer < 2**31"  # the number of a batch's negatives must fit in 64 bits
    _require(config["negatives"] < 2**31, "negatives", config["negatives"], expected)
    _require(
        0 <= config["seed"] <= LARGEST_INTEGER,
        "seed",
        config["seed"],
        "an integer >= 0 and < 2**63",
    )
    for key in ("patience", "max_grad_norm", "diagnose_every", "workers"):
        value, kind = config[key], "a number > 0" if key == "max_grad_norm" else "an integer >= 1"
        _require(
            value is None or 0 < value <= LARGEST_INTEGER,
            key,
            value,
            f"null or {kind}, and < 2**63",
        )
    ks = config["ks"]
    valid = 10 in ks and min(ks) >= 1 and max(ks) <= LARGEST_INTEGER
    _require(valid, "ks", ks, "integers >= 1 with 10 among them")
    _require(config["results"]["root"] != "", "results.root", "", "a folder")
    _require(config["results"]["name"] != "", "results.name", "", "null or a name")
    for group in ("data", "model", "optimizer"):
        _require(isinstance(config[group], dict), group, config[group], f"one of configs/{group}")
    study = config["study"]
    _require(study is None or isinstance(study, dict), "study", study, "null or keys and values")
    _require_one_of("device", config["device"], ("auto", "cpu", "cuda"))
    _require_one_of("mask_seen", config["mask_seen"], ("others", "all", "none"))
    _require_one_of("gradients", config["gradients"], GRADIENTS)
    _require_one_of("tracker.mode", config["tracker"]["mode"], MODES)
    for group in ("model", "optimizer"):
        _require("_target_" in config[group], f"{group}._target_", None, "a class")
        for key, value in config[group].items():
            if not key.startswith("_"):
                numbers = value if isinstance(value, list) else [value]
                valid = all(v is None or isinstance(v, int | float) for v in numbers)
                expected = "a number, true, false, null, or a list of these"
                _require(valid, f"{group}.{key}", value, expected)
                finite = all(v is None or math.isfinite(v) for v in numbers)
                # JSON has no NaN and no infinity
                _require(finite, f"{group}.{key}", value, "finite")
    if config["gradients"] != "float32" and config["workers"] is None:
        if not started_by_torchrun():
            raise UserError(
                f"gradients={config['gradients']}: workers exchange votes; start them by "
                "`torchrun --standalone --nproc-per-node=N -m scripts.train`, "
                "with scripts.status, add workers=N instead"
            )
        config["workers"] = int(os.environ["WORLD_SIZE"])
    return config


def is_user_error(error: Exception) -> bool:
    """Whether the user can correct it: a UserError, a DataError, or any error raised in Hydra or
    OmegaConf.
    """
    if isinstance(error, UserError | DataError | HydraException | OmegaConfBaseException):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").split(".")[0] in ("hydra", "omegaconf")


def one_line(error: Exception) -> str:
    """An error as one line, with a hint if an override cannot be read or needs an extra."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file in EXTRAS:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        extra = EXTRAS[str(error.missing_cfg_file)]
        return f"{group}={name} is not installed: pip install '.[{extra}]'"
    text = str(error) or str(error.__cause__)  # str(error) is empty for a value in a YAML file
    line = " ".join(text.split("Config search path")[0].split())
    if isinstance(error, OverrideParseException):
        line += "; quote a value with special characters for Hydra and the shell: 'KEY=\"VALUE\"'"
    return line


def _require_all(section: Any, names: type, prefix: str = "") -> None:
    """Refuse a removed key (~KEY): it would get the dataclass's default, not that of train.yaml."""
    for name in (each.name for each in fields(names)):
        if isinstance(section, DictConfig) and name not in section:
            key = f"{prefix}{name}"
            raise UserError(f"~{key}: this key cannot be removed; set {key}=VALUE")


def _require(valid: bool, key: str, value: Any, expected: str) -> None:
    if not valid:
        raise UserError(f"{key} must be {expected}, got {value!r}")


def _require_one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    _require(value in known, key, value, f"one of {', '.join(known)}")
