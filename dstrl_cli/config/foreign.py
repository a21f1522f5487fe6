"""What other tools call a key, and what becomes of keys that they have and dstrl has not.

Mostly Stable-Baselines3, its Zoo, CleanRL and the papers' code. Pure data, and the words for it.
"""

from __future__ import annotations

import re
from typing import Any

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
    "n_timesteps": "steps",
    "total_timesteps": "steps",
    "noise_std": "exploration_noise",
    "target_policy_noise": "target_noise",
    "n_steps": "nstep",
    "n_step_returns": "nstep",
    "eval_episode": "eval_episodes",
    "init_temperature": "alpha",
}
"""Names that other tools give to a configuration key."""

_ONE_ENVIRONMENT = "a run has one environment; several runs side by side are --seeds 0-4"
_NOT_HERE = "dstrl has nothing like it"
_BUFFER = "the replay buffer is chosen by the device and the method"
_CONTINUOUS_NOISE = "exploration noise is normal, of the size of exploration_noise"

LEAVE_OUT = {
    "policy": "networks are layers of hidden_sizes with ReLU",
    "activation_fn": "hidden layers are ReLU",
    "noise_type": _CONTINUOUS_NOISE,
    "action_noise_type": _CONTINUOUS_NOISE,
    **dict.fromkeys(("use_sde", "sde_sample_freq", "use_sde_at_warmup", "log_std_init"), _NOT_HERE),
    **dict.fromkeys(
        ("normalize", "normalize_kwargs"), "observations and rewards are used as given"
    ),
    **dict.fromkeys(("clip_mean", "use_expln", "share_features_extractor"), _NOT_HERE),
    "n_critics": "the algorithm decides how many critics there are",
    **dict.fromkeys(("n_envs", "vec_env_class", "vec_env_wrapper"), _ONE_ENVIRONMENT),
    **dict.fromkeys(("env_wrapper", "frame_stack"), "register the environment with its wrappers"),
    **dict.fromkeys(("callback", "verbose", "tensorboard_log"), "every run logs to its folder"),
    **dict.fromkeys(("optimize_memory_usage", "replay_buffer_class"), _BUFFER),
    "replay_buffer_kwargs": _BUFFER,
}
"""Keys of other tools that have no counterpart, and why they are not needed."""


def counterpart(key: str, value: Any) -> str | None:
    """Return what to write here instead of a key of another tool, or that there is nothing.

    Args:
        key: dotted, as it was written.
        value: what it was given there; None where that is not known.

    Returns None for a key that no other tool is known to have.
    """
    group, _, leaf = key.rpartition(".")
    if leaf in _SPECIAL:
        return f"write {_SPECIAL[leaf](value)}"
    if group.endswith("net_arch") and leaf in _NETWORKS:
        return f"write {_written(f'{_NETWORKS[leaf]}.hidden_sizes', value)}"
    if group == "env_kwargs":
        return f"write {_written(f'env.kwargs.{leaf}', value)}"
    if leaf in KEYS:
        return f"write {_written(KEYS[leaf], value)}"
    if leaf in LEAVE_OUT:
        return f"leave it out: {LEAVE_OUT[leaf]}"
    return None


def _written(key: str, value: Any) -> str:
    return key if value is None else f"{key}: {value}"


def _entropy(value: Any) -> str:
    """Return the temperature that an entropy coefficient of Stable-Baselines3 means."""
    if value is None:
        return "temperature: learned, or temperature: fixed with its alpha"
    kind, _, start = str(value).partition("_")
    if kind != "auto":
        return f"temperature: fixed, and alpha: {value}"
    return "temperature: learned" + (f", and alpha: {start}" if start else "")


_NETWORKS = {"pi": "actor", "qf": "critic"}


def _sizes(value: Any) -> str:
    """Return the layer sizes in the arguments of a policy, as in `dict(net_arch=[400, 300])`."""
    if isinstance(value, list | tuple):
        return _written("hidden_sizes", list(value))
    text = str(value)
    if both := re.search(r"net_arch\s*=\s*(\[[\d,\s]*\])", text):
        return f"hidden_sizes: {both[1]}"
    parts = re.findall(r"\b(pi|qf)\b['\"]?\s*[=:]\s*(\[[\d,\s]*\])", text)
    each = [f"{_NETWORKS[name]}.hidden_sizes: {sizes}" for name, sizes in parts]
    return ", and ".join(each) or "hidden_sizes: [256, 256]"


_SPECIAL = {"ent_coef": _entropy, "policy_kwargs": _sizes, "net_arch": _sizes}
