"""Unknown flags: which flag of dstrl, or which `--set`, does what users of other tools typed."""

from __future__ import annotations

import difflib
from typing import Any

from typer.core import TyperCommand
from typing_extensions import override

from dstrl_cli.errors import InputError

FLAGS = {
    **dict.fromkeys(
        (
            *("total_timesteps", "timesteps", "n_timesteps", "max_timesteps", "num_timesteps"),
            *("total_steps", "max_steps", "num_steps", "n_steps", "num_env_steps"),
        ),
        "--steps N",
    ),
    **dict.fromkeys(
        ("n_episodes", "num_episodes", "max_episodes", "total_episodes"), "--episodes N"
    ),
    **dict.fromkeys(
        ("env_id", "env_name", "environment", "gym_id", "task_name", "domain"), "--env ID"
    ),
    **dict.fromkeys(("algorithm", "agent", "policy"), "--algo NAME"),
    **dict.fromkeys(("method", "rule", "sparse_method"), "--dst NAME"),
    **dict.fromkeys(("config", "conf_file", "config_file", "experiment"), "--preset NAME|FILE"),
    **dict.fromkeys(("cuda", "gpu", "use_cuda"), "--device cuda"),
    **dict.fromkeys(("cpu", "no_cuda"), "--device cpu"),
    **dict.fromkeys(("n_jobs", "num_workers", "workers", "processes"), "--jobs N"),
    **dict.fromkeys(
        ("log_dir", "logdir", "log_folder", "output", "output_dir", "results", "save_dir"),
        "--out FOLDER",
    ),
    **dict.fromkeys(("num_seeds", "n_seeds", "num_runs", "random_seed"), "--seeds 0-4"),
    **dict.fromkeys(
        ("n_envs", "num_envs", "n_env", "num_env"),
        "--seeds 0-4 for several runs side by side (a run has one environment)",
    ),
    **dict.fromkeys(("force", "restart"), "--overwrite"),
    "track": "--out FOLDER: every run is logged there",
}
"""Flags of other tools, and what to write instead."""

KEYS = {
    "eval_freq": "eval_every",
    "eval_frequency": "eval_every",
    "eval_interval": "eval_every",
    "evaluation_interval": "eval_every",
    "n_eval_episodes": "eval_episodes",
    "num_eval_episodes": "eval_episodes",
    "eval_eps": "eval_episodes",
    "lr": "learning_rate",
    "actor_lr": "learning_rate",
    "critic_lr": "learning_rate",
    "policy_lr": "learning_rate",
    "q_lr": "learning_rate",
    "batch": "batch_size",
    "replay_size": "buffer_size",
    "memory_size": "buffer_size",
    "start_timesteps": "learning_starts",
    "start_steps": "learning_starts",
    "random_steps": "learning_starts",
    "warmup_steps": "learning_starts",
    "discount": "gamma",
    "polyak": "tau",
    "expl_noise": "exploration_noise",
    "action_noise": "exploration_noise",
    "policy_noise": "target_noise",
    "noise_clip": "target_noise_clip",
    "policy_freq": "policy_delay",
    "policy_frequency": "policy_delay",
    "n_step": "nstep",
    "multi_step": "nstep",
    "hidden_dim": "hidden_sizes",
    "hidden_size": "hidden_sizes",
    "net_arch": "hidden_sizes",
    "num_threads": "threads",
    "checkpoint_freq": "checkpoint_every",
    "zeta": "topology.drop_fraction",
    "delta": "topology.update_interval",
}
"""Names that other tools give to a configuration key."""


def instead_of(flag: str) -> str | None:
    """Return what to write instead of an unknown flag, such as `--lr`, or None."""
    from dstrl_cli.config.keys import MACROS, keys

    name = flag.lstrip("-").replace("-", "_")
    if name in FLAGS:
        return FLAGS[name]
    known = [*keys(), *MACROS]
    key = KEYS.get(name) or _key(name, known)
    return None if key is None else f"--set {key}=VALUE"


def _key(name: str, known: list[str]) -> str | None:
    """Return the key of that name, or the one that ends in it: of a rule, of both networks."""
    if name in known:
        return name
    ending = [key for key in known if key.rpartition(".")[2] == name]
    ending = [key for key in ending if key.startswith("topology.")] or ending
    return ending[0] if len(ending) == 1 else None


class HintingCommand(TyperCommand):
    """A command that says, for an unknown flag, what to write instead."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as every command does. Raises InputError for a flag that a hint exists for."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # click's NoSuchOption, which some versions of typer bring along
            flag = getattr(error, "option_name", None)
            if type(error).__name__ != "NoSuchOption" or not isinstance(flag, str):
                raise
            own = [option for parameter in self.params for option in parameter.opts]
            near = difflib.get_close_matches(flag, own, n=1, cutoff=0.85)
            hint = instead_of(flag) or next(iter(near), None)
            if hint is None or hint.split()[0] not in own:
                raise
            raise InputError(f"{flag}: no such flag of {ctx.command_path}; use {hint}") from None
