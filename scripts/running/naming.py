"""What a record is called: its experiment, its model, what was overridden, its seed."""

import hashlib
import json
from typing import Any
from urllib.parse import quote

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType

from scripts.records.record import WITHOUT_EFFECT

# They have a place of their own in a record's path, or say only where the data lie.
NOT_IN_NAME = ("optimizer", "data", "model", "experiment", "seed", "data.path", "data.root")
LONGEST = 160  # file systems take 255 bytes; a lock's and a part's names are longer


def choices() -> dict[str, str]:
    """What was chosen of each config group: the names that records and tables go by."""
    chosen = HydraConfig.get().runtime.choices
    names = {key: str(chosen[key]) for key in ("data", "model", "optimizer")}
    return names | {"experiment": str(chosen.get("experiment") or "single")}


def record_name(config: dict[str, Any], names: dict[str, str]) -> str:
    """``results.name``, else ``EXPERIMENT-MODEL[-KEY=VALUE...]-seedSEED``; never a path.

    Every override of the command that has an effect is a KEY=VALUE, so a run of another setting
    never has the name of an earlier one. Only Hydra's config of the run is asked: all launchers
    and sweepers give the same names.
    """
    if config["results"]["name"] is not None:
        return flat(str(config["results"]["name"]))
    parts = [f"{key}={value}" for key, value in sorted(overridden().items())]
    middle = "".join(f"-{flat(part)}" for part in parts)
    if len(middle) > LONGEST:
        middle = f"{middle[:LONGEST]}~{hashlib.sha256(middle.encode()).hexdigest()[:8]}"
    return flat(f"{names['experiment']}-{names['model']}") + f"{middle}-seed{config['seed']}"


def overridden() -> dict[str, str]:
    """The overrides that have an effect and no other place, each with its value as text."""
    given = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    found = {}
    for override in given:
        key = override.key_or_group
        if key in NOT_IN_NAME or key.split(".")[0] in WITHOUT_EFFECT:
            continue
        deleted = override.type == OverrideType.DEL
        found[key] = "deleted" if deleted else as_text(override.value())
    return found


def as_text(value: Any) -> str:
    """A value in one spelling, however it was typed: 0.001 for 1e-3."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def flat(name: str) -> str:
    """A file name without folders; other characters than these are percent-encoded."""
    return quote(name, safe="=+,[]{}() ") if name.strip(".") else quote(name).replace(".", "%2E")
