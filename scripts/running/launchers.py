"""Hydra's plugins: which launcher and sweeper are chosen, and what their errors mean."""

import traceback

from hydra.conf import HydraConf

from scripts.records.errors import RunFailed, UserError

PARTS = ("launcher", "sweeper")
BUILT_IN = "hydra._internal."  # the package of Hydra's own parts
ENGINES = ("joblib", "ray", "submitit")  # packages that start processes for launchers


def foreign_parts(hydra: HydraConf) -> list[str]:
    """The launcher and the sweeper of Hydra's config, as overrides, if they are plugins."""
    choices = hydra.runtime.choices
    named = {part: f"hydra/{part}={choices[f'hydra/{part}']}" for part in PARTS}
    if choices.get("launcher"):
        named["launcher"] = f"launcher={choices['launcher']}"
    return [
        named[part]
        for part in PARTS
        if not str(getattr(hydra, part)["_target_"]).startswith(BUILT_IN)
    ]


def require_own_parts(hydra: HydraConf) -> None:
    """Check that torchrun's workers will train the same runs in the same order.

    Raises:
        UserError: a launcher would start processes, or a sweeper choose other runs in each worker.
    """
    if foreign := foreign_parts(hydra):
        raise UserError(
            f"{foreign[0]}: torchrun's workers train one run after the other; leave out "
            f"{foreign[0].split('=')[0]}, or torchrun"
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
