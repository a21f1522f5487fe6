"""The policy file: how networks are stored, and a policy that acts from one with NumPy alone.

A file holds the actor and the critics (weights, biases, masks) as safetensors, never pickled, so a
file that comes from others is safe to open. The README describes it under "The policy file".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dstrl_cli import __version__
from dstrl_cli.config.parts import EnvConfig
from dstrl_cli.config.readfile import MAX_POLICY, check_file, parse_json
from dstrl_cli.errors import InputError
from dstrl_cli.runs.files import is_file
from dstrl_cli.runs.status import SUMMARY_FILE

FORMAT = "dstrl-policy-1"
POLICY_FILE = "policy.safetensors"
INITIAL_FILE = "initial.safetensors"
BEST_FILE = "best.safetensors"
POLICY_FILES = (INITIAL_FILE, POLICY_FILE, BEST_FILE)

Tensors = dict[str, NDArray]


def network_tensors(
    name: str,
    weights: Sequence[NDArray],
    biases: Sequence[NDArray],
    masks: Sequence[NDArray],
) -> Tensors:
    """Return the named tensors of one network (`actor`, `critic1`, `critic2`).

    weights and masks: one [in, out] array per layer, from the input on; biases: [out] each.
    """
    tensors: Tensors = {}
    for layer, (weight, bias, mask) in enumerate(zip(weights, biases, masks, strict=True)):
        tensors[f"{name}.weight.{layer}"] = np.ascontiguousarray(weight, dtype=np.float32)
        tensors[f"{name}.bias.{layer}"] = np.ascontiguousarray(bias, dtype=np.float32)
        tensors[f"{name}.mask.{layer}"] = np.ascontiguousarray(mask, dtype=np.uint8)
    return tensors


def policy_metadata(
    *,
    algo: str,
    env: str,
    task: int | None,
    observation_size: int,
    action_size: int,
    action_low: Sequence[float],
    action_high: Sequence[float],
    hidden_sizes: Sequence[int],
    step: int,
    env_kwargs: Mapping[str, Any] | None = None,
    env_flatten: bool = False,
    env_noise_features: float = 0.0,
    action_dtype: str = "float32",
) -> dict[str, str]:
    """Return the metadata of a policy file: strings only, no path and no time.

    The lines that fix the environment come from its `EnvSpec`; `hidden_sizes` are the actor's.
    `env_kwargs`, `env_flatten`, `env_noise_features` and `action_dtype` have a line only where they
    are not usual, so that other versions read the file.
    """
    unusual = {
        **({"env_kwargs": json.dumps(env_kwargs, sort_keys=True)} if env_kwargs else {}),
        **({"env_flatten": "true"} if env_flatten else {}),
        **({"env_noise_features": repr(env_noise_features)} if env_noise_features else {}),
        **({"action_dtype": action_dtype} if action_dtype != "float32" else {}),
    }
    return {
        "format": FORMAT,
        "dstrl": __version__,
        "algo": algo,
        "env": env,
        "task": "" if task is None else str(task),
        "observation_size": str(observation_size),
        "action_size": str(action_size),
        "action_low": json.dumps([float(bound) for bound in action_low]),
        "action_high": json.dumps([float(bound) for bound in action_high]),
        "hidden_sizes": json.dumps([int(size) for size in hidden_sizes]),
        "step": str(step),
        **unusual,
    }


def dump(tensors: Mapping[str, NDArray], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a policy file; the same content always gives the same bytes.

    safetensors writes its metadata in the order of a randomly seeded hash table, so the header is
    written again with sorted keys.
    """
    raw = save(dict(tensors), dict(metadata))
    length = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + length]), sort_keys=True, separators=(",", ":"))
    text = header.encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


def read(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Return the tensors and the metadata of a policy file.

    Raises InputError where the file is missing, damaged or not a policy file of dstrl.
    """
    if not path.exists():
        raise InputError(f"policy file {path} does not exist")
    try:
        check_file(path, MAX_POLICY)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"policy file {path} cannot be read: {error}") from error
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"policy file {path} is not a policy file of dstrl: its format is "
            f"'{metadata.get('format', '')}', expected '{FORMAT}'"
        )
    return tensors, metadata


def find_policy(run: Path) -> Path:
    """Return the policy file that `run` (a run folder or a policy file) names.

    Raises InputError where there is none, as in an archive of runs.
    """
    if is_file(run):
        if run.suffix == ".zip":
            raise InputError(
                f"'{run}' is an archive of logs, without policies: give a run's folder"
            )
        return run
    if not os.path.isdir(run):  # noqa: PTH112
        raise InputError(f"run '{run}' does not exist: give a run folder or a policy file")
    if not (run / POLICY_FILE).is_file():
        raise InputError(f"run '{run}' holds no {POLICY_FILE}: {_why_none(run)}")
    return run / POLICY_FILE


def _why_none(run: Path) -> str:
    if (run / SUMMARY_FILE).is_file():
        return (
            "archives of runs have logs alone; train it again (dstrl train --config "
            f"'{run}/config.yaml' --out FOLDER)"
        )
    return (
        "it is written at the first evaluation; give the folder of one run (.../s0.95/seed0) or a "
        "policy file"
    )


@dataclass(frozen=True)
class Policy:
    """A trained policy without noise: ReLU layers, then tanh of the mean action.

    Attributes:
        algo: the algorithm that trained it.
        env: the Gymnasium id of the environment that it was trained on.
        task: which task of a navigation environment; None elsewhere.
        env_kwargs: further arguments that the environment was made with.
        observation_size: entries of an observation.
        action_size: entries of an action.
        action_low: lower bounds of the actions [act], in the type of the action space.
        action_high: upper bounds of the actions [act], likewise.
        step: the environment step of training at which it was stored.
        weights: per layer [in, out] float32; inactive connections are zero.
        biases: per layer [out] float32.
        env_flatten: whether Gymnasium's FlattenObservation makes vectors of the observations.
        env_noise_features: share of the observations that is noise.
    """

    algo: str
    env: str
    task: int | None
    env_kwargs: Mapping[str, Any]
    observation_size: int
    action_size: int
    action_low: NDArray[np.floating]
    action_high: NDArray[np.floating]
    step: int
    weights: tuple[NDArray, ...]
    biases: tuple[NDArray, ...]
    env_flatten: bool = False
    env_noise_features: float = 0.0

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read the actor of a policy file.

        Raises InputError for a file that is unreadable, of another format or inconsistent.
        """
        tensors, metadata = read(path)
        try:
            observation_size = int(metadata["observation_size"])
            action_size = int(metadata["action_size"])
            dtype = _float_type(metadata.get("action_dtype", "float32"))
            low, high = (
                np.array(parse_json(metadata[key]), dtype=dtype).reshape(action_size)
                for key in ("action_low", "action_high")
            )
            hidden_sizes = [int(size) for size in parse_json(metadata["hidden_sizes"])]
            algo, env = metadata["algo"], metadata["env"]
            task = int(metadata["task"]) if metadata["task"] else None
            step = int(metadata["step"])
            env_kwargs = dict(parse_json(metadata.get("env_kwargs", "{}")))
            flatten = metadata.get("env_flatten") == "true"
            noise = float(metadata.get("env_noise_features", "0"))
            EnvConfig(id=env, task=task or 0, kwargs=env_kwargs, noise_features=noise)
            if not (np.isfinite([low, high]).all() and (low <= high).all()):
                raise ValueError("the bounds of the actions are not finite, or not in order")
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise InputError(f"policy file {path} has damaged metadata: {error!r}") from error
        weights, biases = _actor_layers(path, tensors)
        _check_shapes(path, weights, biases, [observation_size, *hidden_sizes], action_size)
        sizes = (observation_size, action_size)
        made = (algo, env, task, env_kwargs, *sizes, low, high, step, weights, biases)
        return cls(*made, flatten, noise)

    def act(self, observations: NDArray) -> NDArray[np.floating]:
        """Return the actions for the environment, within its bounds and in their type.

        Args:
            observations: one observation [obs] or a batch of them [N, obs].

        Returns:
            One action [act], or a batch of them [N, act].

        Raises:
            InputError: the observations have another shape.
        """
        middle, half = self.scale()
        action = middle + half * self.unit_action(observations)
        clipped = np.clip(action, self.action_low, self.action_high)  # rounding may pass a bound
        return clipped.astype(self.action_low.dtype)

    def scale(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return the middle and half the width of the action bounds, [act] each.

        They are in the type in which actions are computed, as in training (`envs.actions`): that
        of the bounds, or float32 if it is finer.
        """
        low, high = self.action_low.astype(np.float64), self.action_high.astype(np.float64)
        computed = np.result_type(self.action_low.dtype, np.float32)
        return (low / 2 + high / 2).astype(computed), (high / 2 - low / 2).astype(computed)

    def unit_action(self, observations: NDArray) -> NDArray[np.float32]:
        """Return the actions in [-1, 1]; shapes and errors as those of `act`.

        An output twice as wide as the action holds mean and log standard deviation (SAC); the
        mean acts.
        """
        hidden = np.asarray(observations, dtype=np.float32)
        if hidden.ndim not in (1, 2) or hidden.shape[-1] != self.observation_size:
            raise InputError(
                f"observations have the shape {list(hidden.shape)}, but this policy takes "
                f"[{self.observation_size}] or [N, {self.observation_size}]"
            )
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = hidden @ weight + bias  # [..., out]
            if layer < last:
                hidden = np.maximum(hidden, 0.0)
        return np.tanh(hidden[..., : self.action_size])


def _float_type(name: str) -> np.dtype[Any]:
    """Return NumPy's floating type of a name. Raises ValueError for any other."""
    if name not in ("float16", "float32", "float64"):
        raise ValueError(f"action_dtype {name}")
    return np.dtype(name)


def _actor_layers(path: Path, tensors: Tensors) -> tuple[tuple[NDArray, ...], tuple[NDArray, ...]]:
    """Return the actor's weights and biases, inactive connections exactly zero."""
    weights: list[NDArray] = []
    biases: list[NDArray] = []
    while f"actor.weight.{len(weights)}" in tensors:
        layer = len(weights)
        bias, mask = tensors.get(f"actor.bias.{layer}"), tensors.get(f"actor.mask.{layer}")
        if bias is None or mask is None:
            raise InputError(f"policy file {path} lacks the bias or mask of actor layer {layer}")
        weight = tensors[f"actor.weight.{layer}"]
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
            weight, bias = weight.astype(np.float32), bias.astype(np.float32)
        if mask.shape != weight.shape:
            raise InputError(
                f"policy file {path}: actor layer {layer} has weights {weight.shape} but a mask "
                f"{mask.shape}"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise InputError(
                f"policy file {path}: actor layer {layer} holds numbers that are not finite; the "
                "training diverged, or the file is damaged"
            )
        weights.append(np.where(mask != 0, weight, np.float32(0)))
        biases.append(bias)
    if not weights:
        raise InputError(f"policy file {path} holds no actor (no tensor 'actor.weight.0')")
    return tuple(weights), tuple(biases)


def _check_shapes(
    path: Path,
    weights: tuple[NDArray, ...],
    biases: tuple[NDArray, ...],
    inputs: Sequence[int],
    action_size: int,
) -> None:
    """Raise InputError unless the layers are those that the metadata announces."""
    if len(weights) != len(inputs):
        raise InputError(
            f"policy file {path}: {len(weights)} actor layers, but the metadata announces "
            f"{len(inputs)}"
        )
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        last = layer + 1 == len(inputs)
        outputs = (action_size, 2 * action_size) if last else (inputs[layer + 1],)
        expected = [(inputs[layer], size) for size in outputs]
        if weight.shape not in expected or bias.shape != weight.shape[1:]:
            raise InputError(
                f"policy file {path}: actor layer {layer} has weights {weight.shape} and biases "
                f"{bias.shape}, but the metadata announces {expected[0]}"
            )
