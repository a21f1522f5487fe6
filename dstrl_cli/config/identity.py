"""What makes two runs the same run, and the folder in which a run lives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dstrl_cli.config.keys import flatten
from dstrl_cli.config.labels import format_sparsity_label
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.starts import FRESH, PLACES, STARTS
from dstrl_cli.registry import algorithm_name

NOT_IDENTITY = frozenset(
    {
        "out",
        "device",
        "engine",
        "threads",
        "checkpoint_every",
        "keep_checkpoint",
        "env_workers",
        "env.timeout",
        "replay_device",
        "compile",
        "tensorboard",
        "wandb",
        "metric",
        "method_label",
        "method_order",
        *PLACES,  # paths; what is found there is init_mask_source and its like
    }
)
"""Keys that change where and how fast a run happens or how it is shown, never its numbers."""


def identity(config: RunConfig) -> dict[str, Any]:
    """Return the dotted keys and values that make two runs the same run."""
    flat = {k: v for k, v in flatten(to_dict(config)).items() if k not in NOT_IDENTITY}
    return flat | {"env.id": env_identity(config.env.id)}


def differences(a: RunConfig, b: RunConfig) -> list[str]:
    """Return the identity keys in which two runs differ, as `key: value of a -> value of b`."""
    first, second = identity(a), identity(b)
    pairs = {k: (first.get(k, "not set"), second.get(k, "not set")) for k in first | second}
    return [f"{k}: {old} -> {new}" for k, (old, new) in pairs.items() if old != new]


def env_name(env_id: str) -> str:
    """Return the name of an environment, without module, `dstrl/` and slash."""
    return env_id.rpartition(":")[2].removeprefix("dstrl/").replace("/", "-")


def env_identity(env_id: str) -> str:
    """Return what tells environments apart: the id with its module, without `dstrl/`.

    Two modules may register one id for different environments.
    """
    return env_id.removeprefix("dstrl/")


def env_folder(env_id: str, *, with_module: bool = False, noise: float = 0.0) -> str:
    """Return the folder of an environment's runs: its name, after its module if `with_module`.

    noise: the share of noisy features, by which environments differ as much as by their names.
    """
    module, name = env_id.rpartition(":")[0], env_name(env_id) + noise_label(noise)
    return f"{module}.{name}" if with_module and module else name


def noise_label(noise: float) -> str:
    """Return what the name of an environment says of noisy features: `.noise0.98`, or nothing."""
    return f".noise{noise:.10g}" if noise else ""


def sparsity_label(config: RunConfig) -> str:
    """Return `s0.95`, `a0.96-c0.88` where the networks differ, `s0` where both are dense."""
    return format_sparsity_label(config.actor.sparsity, config.critic.sparsity)


def run_path(
    config: RunConfig, suffix: str = "", *, with_task: bool = False, with_module: bool = False
) -> Path:
    """Return a run's folder, relative to `out`: environment, method, sparsity, seed.

    `suffix` follows the method (`+nstep5`), after what the run starts from. The task is named where
    it is not 0 or `with_task`, the environment's module only `with_module`.
    """
    noise = config.env.noise_features
    env = env_folder(config.env.id, with_module=with_module, noise=noise)
    if with_task or config.env.task:
        env += f".task{config.env.task}"
    method = f"{algorithm_name(config.algo)}-{config.method}{start_label(config)}{suffix}"
    return Path(env, method, sparsity_label(config), f"seed{config.seed}")


# --- what a run starts from ---------------------------------------------------------------------

_SOURCE = re.compile(
    r"(?P<env>[^/]+)/(?P<algo>[^/-]+)-(?P<method>[^/]+)/(?P<sparsity>[^/]+)/seed(?P<seed>\d+)/"
    r"(?P<file>[^/@]+)@(?P<checksum>[0-9a-f]+)"
)
"""What `init_mask_source` and its like hold: a file of a run, and its checksum."""


def source_text(run: Path, file: str, checksum: str) -> str:
    """Return how a configuration names a file of another run: by what that run is.

    Args:
        run: its folder, as `run_path` gives it.
        file: the name of the file.
        checksum: SHA-256 of the file.
    """
    return f"{run.as_posix()}/{file}@{checksum}"


def start_label(config: RunConfig) -> str:
    """Return what the folder of a run says of the runs that it starts from: `+mask-rlx2`.

    An algorithm that is not the run's, and a file or a seed that is not the usual one, are named,
    too: `+mask-rlx2.best.seed3`, `+expert-td3-dense`.
    """
    label = ""
    for what, row in STARTS.items():
        source = getattr(config, row.source)
        if source is not None:
            label += f"+{what}-{_short(source, row.usual, config)}"
    return label


def _short(source: str, usual: str, config: RunConfig) -> str:
    match = _SOURCE.fullmatch(source)
    if source == FRESH:
        return source
    if match is None:  # of a file that lies in no run
        name, _, checksum = source.rpartition("@")
        return re.sub(r"[^\w.-]+", "-", f"{name}-{checksum[:8]}")
    stem, theirs = match["file"].partition(".")[0], int(match["seed"])
    algo = "" if match["algo"] == algorithm_name(config.algo) else f"{match['algo']}-"
    other_file = "" if stem == usual else f".{stem}"
    other_seed = "" if theirs == config.seed else f".seed{theirs}"
    return f"{algo}{match['method']}{other_file}{other_seed}"


def source_kind(source: str) -> str:
    """Return what the sources of runs that differ in their seed alone have in common."""
    match = _SOURCE.fullmatch(source)
    if match is None:
        return source
    return "/".join(match[part] for part in ("env", "algo", "method", "sparsity", "file"))
