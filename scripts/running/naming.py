"""The name of a run, from its experiment, model, overrides and seed, and the paths of its files."""

import hashlib
import json
from collections.abc import Container
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import RunMode

from data.fetch import locate
from data.prepare import dataset_name
from scripts.records.errors import UserError
from scripts.records.record import WITHOUT_EFFECT
from scripts.records.run_files import RunFiles

# Optimizer, data, model, experiment and seed have their own place in a record's path. The others
# only say where the data file is and where the run is trained.
NOT_IN_NAME = (
    *("optimizer", "data", "model", "experiment", "seed"),
    *("data.path", "data.root", "launcher", "workers"),
)
MAX_OVERRIDES_LENGTH = (
    160  # file systems allow 255 bytes; lock files and temporary files have longer names
)


def choices() -> dict[str, str]:
    """The chosen file of each config group, which records and tables use as names.

    Raises:
        UserError: a file is in a subfolder, or an experiment's lists are not swept over.
    """
    hydra = HydraConfig.get()
    chosen = hydra.runtime.choices
    names = {key: str(chosen[key]) for key in ("data", "model", "optimizer")}
    names["experiment"] = str(chosen.get("experiment") or "single")
    for group, name in names.items():
        if "/" in name:
            raise UserError(f"{group}={name}: move the file to configs/{group}, not a subfolder")
    given = {override.key_or_group: override.value() for override in _parsed_overrides()}
    if isinstance(given.get("experiment"), list):
        raise UserError(f"experiment={given['experiment']}: name one experiment, without brackets")
    if hydra.mode != RunMode.RUN:
        _require_lists(hydra, given)
    return names


def _require_lists(hydra: HydraConf, given: Container[str]) -> None:
    """Raise UserError for several experiments: Hydra reads the lists of only one of them.

    Args:
        given: the keys of the run's overrides.
    """
    for key, values in (hydra.sweeper.params or {}).items():
        if key not in given:
            raise UserError(
                f"an experiment sweeps over {key}={values}, but Hydra ignores this with several "
                "experiments; run one command for each experiment"
            )


def run_files_of(config: dict[str, Any], names: dict[str, str]) -> RunFiles:
    """The paths of a run's files.

    Args:
        config: the checked config.
        names: the result of ``choices``.

    Raises:
        DataError: ``data=file`` without a file.
    """
    data = locate(config["data"]).stem if names["data"] == "file" else names["data"]
    folder = f"{dataset_name(data)}/{as_file_name(names['optimizer'])}"
    return RunFiles(Path(config["results"]["root"]), folder, record_name(config, names))


def record_name(config: dict[str, Any], names: dict[str, str]) -> str:
    """The file name of a record: ``results.name``, or by default
    ``EXPERIMENT-MODEL[-KEY=VALUE...]-seedSEED``. It never contains a folder.

    Every override that changes the results appears as KEY=VALUE, so runs with different settings
    have different names. The name depends only on Hydra's config of the run, so it is the same
    with all launchers and sweepers.

    Args:
        config: the checked config.
        names: the result of ``choices``.

    Raises:
        UserError: an override removes a key (~KEY).
    """
    values = overridden()
    if config["results"]["name"] is not None:
        return as_file_name(str(config["results"]["name"]))
    if config["gradients"] != "float32":
        values["workers"] = str(config["workers"])
    parts = [f"{key}={value}" for key, value in sorted(values.items())]
    middle = "".join(f"-{as_file_name(part)}" for part in parts)
    if len(middle) > MAX_OVERRIDES_LENGTH:
        middle = (
            f"{middle[:MAX_OVERRIDES_LENGTH]}~{hashlib.sha256(middle.encode()).hexdigest()[:8]}"
        )
    return (
        as_file_name(f"{names['experiment']}-{names['model']}") + f"{middle}-seed{config['seed']}"
    )


def overridden() -> dict[str, str]:
    """The overrides that belong in a record's name, each with its value as text.

    Raises:
        UserError: an override removes a key (~KEY), which would get the default of the dataclass.
    """
    values = {}
    for override in _parsed_overrides():
        key = override.key_or_group
        if key in NOT_IN_NAME or key.split(".")[0] in WITHOUT_EFFECT:
            continue
        if override.type == OverrideType.DEL:
            raise UserError(f"~{key}: this key cannot be removed; set {key}=VALUE")
        values[key] = as_text(override.value())
    return values


def _parsed_overrides() -> list[Override]:
    """The overrides of the run, in their order."""
    return OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))


def as_text(value: Any) -> str:
    """A value as text in one spelling, however the user typed it: 0.001 for 1e-3."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def as_file_name(name: str) -> str:
    """A file name that contains no folder; unusual characters are percent-encoded."""
    return quote(name, safe="=+,[]{}() ") if name.strip(".") else quote(name).replace(".", "%2E")
