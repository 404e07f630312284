"""The runs of a command line, before any of them is started."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from scripts.records.errors import UserError
from scripts.records.run_files import RunFiles
from scripts.running.config import CONFIGS, checked
from scripts.running.launchers import chosen_plugins, require_builtin
from scripts.running.naming import choices, run_files_of


@dataclass(frozen=True)
class Plan:
    """What ``scripts.train -m OVERRIDES`` will do."""

    runs: list[list[str]]  # the overrides of each run
    root: Path  # results.root
    plugins: list[str]  # the launcher and the sweeper, if they are plugins


def plan(overrides: Sequence[str]) -> Plan:
    """Read the overrides of a sweep as Hydra's basic sweeper does.

    Raises:
        HydraException: the overrides do not fit together, or need another sweeper.
        UserError: ``results.root`` has several values.
    """
    cfg = compose_common(overrides)
    swept = [f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*swept, *overrides])
    if any(o.key_or_group == "results.root" and o.is_sweep_override() for o in parsed):
        raise UserError("results.root: one folder is needed, got a list")
    (runs,) = BasicSweeper.split_arguments(parsed, None)
    return Plan(runs, Path(str(cfg.results.root)), chosen_plugins(cfg.hydra))


def compose_common(overrides: Sequence[str]) -> DictConfig:
    """Compose the config from the overrides that are equal for all runs; with the hydra section."""
    given = OverridesParser.create().parse_overrides(list(overrides))
    fixed = [str(o.input_line) for o in given if not o.is_sweep_override()]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose("train", fixed, return_hydra_config=True)


def require_builtin_launcher(arguments: Sequence[str]) -> None:
    """Check the launcher of a command line before it starts anything.

    Raises:
        UserError: see ``require_builtin``.
    """
    # Hydra reports any other error itself, later
    with suppress(HydraException, SystemExit), redirect_stderr(io.StringIO()):
        overrides = get_args_parser().parse_args(list(arguments)).overrides
        require_builtin(compose_common(overrides).hydra)


def compose_runs(runs: Sequence[Sequence[str]]) -> list[tuple[RunFiles, dict[str, Any]]]:
    """The files and the checked config of each run, which is given by its overrides.

    Raises:
        HydraException: the overrides of a run do not fit together.
        UserError, DataError: a value is wrong.
    """
    composed = []
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        for overrides in runs:
            cfg = compose("train", list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            without_hydra = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
            config = checked(without_hydra)
            composed.append((run_files_of(config, choices()), config))
    return composed
