"""Hydra's plugins: the launcher and the sweeper that are chosen, and their errors."""

import traceback

from hydra.conf import HydraConf

from scripts.records.errors import RunFailed, UserError

GROUPS = ("launcher", "sweeper")
BUILT_IN = "hydra._internal."  # the package of Hydra's basic launcher and sweeper
ENGINES = ("joblib", "ray", "submitit")  # packages that start processes for launchers


def chosen_plugins(hydra: HydraConf) -> list[str]:
    """The launcher and the sweeper of Hydra's config, as overrides, if they are plugins."""
    choices = hydra.runtime.choices
    overrides = {group: f"hydra/{group}={choices[f'hydra/{group}']}" for group in GROUPS}
    if choices.get("launcher"):
        overrides["launcher"] = f"launcher={choices['launcher']}"
    return [
        overrides[group]
        for group in GROUPS
        if not str(getattr(hydra, group)["_target_"]).startswith(BUILT_IN)
    ]


def require_builtin(hydra: HydraConf) -> None:
    """Check that torchrun's workers will train the same runs in the same order.

    Raises:
        UserError: a launcher would start processes, or a sweeper choose other runs in each worker.
    """
    if plugins := chosen_plugins(hydra):
        raise UserError(
            f"{plugins[0]} cannot be combined with torchrun, whose workers all train one run at a "
            "time; remove one of the two"
        )


def as_user_error(error: Exception) -> UserError | RunFailed | None:
    """Translate an error of joblib, ray or submitit for the user; None for any other error."""
    first = str(error).strip().split("\n")[0]
    if (engine := _package(type(error).__module__)) in ENGINES:  # a process of the engine died
        return RunFailed(f"{engine}: {first}; the same command trains what is missing")
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    engine = _package(frame.f_globals.get("__name__", ""))
    return UserError(f"{engine}: {first}") if engine in ENGINES else None


def _package(module: str) -> str:
    return module.split(".")[0]
