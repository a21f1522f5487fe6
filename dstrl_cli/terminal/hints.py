"""Flags: their help, and which flag of dstrl, or which `--set`, does what an unknown one asks."""

from __future__ import annotations

import difflib
import shutil
from typing import Any

from typer.core import TyperCommand
from typing_extensions import override

from dstrl_cli.errors import InputError

FLAGS = {
    **dict.fromkeys(
        (
            *("total_timesteps", "timesteps", "n_timesteps", "max_timesteps", "num_timesteps"),
            *("total_steps", "max_steps", "num_steps", "num_env_steps"),
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
    **dict.fromkeys(("restore", "load_checkpoint", "from_checkpoint", "continue"), "--resume"),
    **dict.fromkeys(("checkpoint_freq", "save_freq", "save_every"), "--checkpoint-every N|TIME"),
    "track": "--wandb",
}
"""Flags of other tools, and what to write instead."""


def instead_of(flag: str) -> str | None:
    """Return what to write instead of an unknown flag, such as `--lr`, or None."""
    from dstrl_cli.config.foreign import KEYS
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
    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help: in columns, which cut flags where they are narrow, or else in lines."""
        from dstrl_cli.terminal.columns import NARROW  # rich takes a while to load

        if shutil.get_terminal_size().columns < NARROW:
            self.rich_markup_mode = None
        super().format_help(ctx, formatter)

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
