"""RunConfig and its parts: what one run is, checked once at the edge, in plain immutable models.

This file knows keys, types, bounds and names, and nothing of preset files (`presets`) or of the
lists and ranges of a command line (`ranges`). It imports neither torch nor gymnasium.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from dstrl_cli.algos import ACTOR_OUTPUTS, ALGORITHMS
from dstrl_cli.config.fields import (
    Bounds,
    Device,
    Fraction,
    Lambdas,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Real,
    Whole,
    Widths,
    Workers,
    one_of,
)
from dstrl_cli.config.sizes import lambda_sparsity, layer_weights, matched_widths
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.topology import CRITIC_SCORES, DROP_SCORES, GROW_SCORES

NOT_IDENTITY = frozenset(
    {
        "out",
        "device",
        "engine",
        "threads",
        "checkpoint_every",
        "env_workers",
        "replay_device",
        "compile",
    }
)
"""Keys that change where and how fast a run happens, never its numbers."""


# --- the models ---------------------------------------------------------------------------------


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TopologyConfig(_Model):
    """How one network's topology changes: a drop score, a grow score and a schedule.

    `update_interval` and `update_offset` count that network's own updates; `stop_before_end` is
    in environment steps.
    """

    drop: Annotated[str, one_of("drop score", DROP_SCORES)] = "magnitude"
    grow: Annotated[str, one_of("grow score", GROW_SCORES)] = "random"
    schedule: Literal["static", "constant", "cosine"] = "static"
    drop_fraction: Fraction = 0.5
    update_interval: PositiveInt = 10_000
    update_offset: NonNegativeInt = 0
    stop_before_end: NonNegativeInt = 0
    final_drop: bool = False
    regrow_dropped: bool = True
    grow_init: Literal["zero", "adam_step"] = "zero"
    sign_split: Literal["fraction", "half", "official"] = "fraction"
    accumulate: Literal["topology_update", "critic_update"] = "topology_update"
    td_error: Literal["sum", "mean", "off"] = "sum"


class NetworkConfig(_Model):
    """One network (the actor, or the twin critics): how sparse, how wide, and its topology rule.

    `dense` ignores `sparsity`. `match_parameters` makes the network dense, but as narrow as a
    network of that sparsity has weights. `hidden_sizes` null means the run's.
    """

    sparsity: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    dense: bool = False
    match_parameters: bool = False
    hidden_sizes: Widths | None = None
    allocation: Literal["erdos_renyi", "uniform", "lambda"] = "erdos_renyi"
    lambdas: Lambdas | None = None
    initial_mask: Literal["random", "bernoulli", "magnitude"] = "random"
    topology: TopologyConfig = TopologyConfig()

    @property
    def all_active(self) -> bool:
        """Whether every connection is active, whatever `sparsity` says."""
        return self.dense or self.match_parameters

    @model_validator(mode="after")
    def _lambdas_fit_allocation(self) -> NetworkConfig:
        if self.allocation == "lambda" and self.lambdas is None:
            raise ValueError(
                "allocation: lambda needs lambdas, one per layer from the input on, as in [7, 64]"
            )
        if self.allocation != "lambda" and self.lambdas is not None:
            raise ValueError(
                f"lambdas has no effect with allocation: {self.allocation}; "
                "set allocation: lambda, or leave lambdas out"
            )
        return self


class BufferConfig(_Model):
    """RLx2's dynamic-capacity buffer (RLX Alg. 2); `check_interval` is in environment steps.

    The oldest `check_batches * batch_size` transitions are compared with the current policy. The
    largest size is the run's `buffer_size`; a `min_size` beyond it never lets the buffer shrink.
    """

    dynamic: bool = False
    min_size: PositiveInt = 100_000
    check_interval: PositiveInt = 10_000
    check_batches: PositiveInt = 8
    shrink: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    distance_threshold: NonNegativeFloat = 0.2
    distance: Literal["mean_squared", "l2"] = "mean_squared"


class EnvConfig(_Model):
    """The environment: a Gymnasium id (the `dstrl/` prefix may be left out) and its task."""

    id: Name
    task: Annotated[Whole, Field(ge=0, le=9)] = 0


def _env_shorthand(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


class RunConfig(_Model):
    """One run: an algorithm, a method, an environment and a seed, with every key resolved.

    Defaults are TD3's of the shared base; `presets/algos` states every one with its source.
    `env_workers` are processes that step environments (0: none, the run's own process), and
    `replay_device: auto` keeps the replay buffer beside the networks.
    """

    algo: Annotated[str, one_of("algorithm", ALGORITHMS)]
    method: Name
    env: Annotated[EnvConfig, BeforeValidator(_env_shorthand)]
    seed: NonNegativeInt = 0
    steps: Annotated[Whole, Field(ge=1, le=1_000_000_000)] = 1_000_000

    learning_starts: NonNegativeInt = 25_000
    learning_rate: PositiveFloat = 3e-4
    weight_decay: NonNegativeFloat = 0.0
    batch_size: PositiveInt = 256
    gamma: Annotated[Real, Field(ge=0, le=1)] = 0.99
    tau: Fraction = 0.005
    policy_delay: PositiveInt = 2
    target_update_interval: PositiveInt = 1
    buffer_size: PositiveInt = 1_000_000
    hidden_sizes: Widths = (256, 256)
    weight_init: Literal["fan_in", "orthogonal", "xavier"] = "fan_in"

    exploration_noise: NonNegativeFloat = 0.1
    target_noise: NonNegativeFloat = 0.2
    target_noise_clip: NonNegativeFloat = 0.5

    temperature: Literal["learned", "fixed"] = "learned"
    alpha: PositiveFloat = 1.0
    target_entropy: Real | None = None
    log_std_squash: Literal["tanh", "clamp"] = "tanh"
    log_std_bounds: Bounds = (-5.0, 2.0)
    collect: Literal["stochastic", "mean"] = "stochastic"

    nstep: Annotated[Whole, Field(ge=1, le=20)] = 1
    nstep_delay: NonNegativeInt = 0
    buffer: BufferConfig = BufferConfig()
    rewire: Literal["after_step", "instead_of_step"] = "after_step"
    target_masking: Literal["none", "online_mask", "magnitude_trim"] = "none"
    gradients: Literal["masked", "dense"] = "masked"
    moments: Literal["reset", "keep"] = "reset"
    initial_targets: Literal["sparse", "dense"] = "sparse"

    actor: NetworkConfig = NetworkConfig()
    critic: NetworkConfig = NetworkConfig()

    eval_every: PositiveInt = 5_000
    eval_episodes: PositiveInt = 10
    checkpoint_every: NonNegativeInt = 0
    device: Device = "auto"
    engine: Literal["auto", "masked", "sparse"] = "auto"
    threads: PositiveInt = 1
    env_workers: Workers = "auto"
    replay_device: Literal["auto", "cpu"] = "auto"
    compile: bool = False
    out: Name = "results"

    @model_validator(mode="after")
    def _bounds_ordered(self) -> RunConfig:
        low, high = self.log_std_bounds
        if low >= high:
            raise ValueError(
                f"log_std_bounds: [{low:g}, {high:g}] must be ordered, the lower bound first"
            )
        return self

    @model_validator(mode="after")
    def _actor_scores(self) -> RunConfig:
        for key in ("drop", "grow"):
            score = getattr(self.actor.topology, key)
            if score in CRITIC_SCORES:
                raise ValueError(
                    f"actor.topology.{key}: {score} needs the TD error of a critic; "
                    f"set critic.topology.{key} instead"
                )
        return self


# --- keys ---------------------------------------------------------------------------------------

MACROS: dict[str, tuple[str, str]] = {
    "sparsity": ("actor.sparsity", "critic.sparsity"),
    **{
        f"topology.{name}": (f"actor.topology.{name}", f"critic.topology.{name}")
        for name in TopologyConfig.model_fields
    },
}
"""Keys of presets, method files and `--set` that stand for the same key of both networks."""


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


@cache
def keys() -> tuple[str, ...]:
    """Return every dotted key of a run, in the order of the models."""
    return tuple(_leaves(RunConfig))


def unknown_key(key: str) -> str:
    """Return the message for an unknown key: its siblings, or keys of nearly its name elsewhere."""
    valid = [*keys(), *MACROS]
    group, _, leaf = key.rpartition(".")
    siblings = [name for name in valid if name.rpartition(".")[0] == group]
    near = difflib.get_close_matches(leaf, {name.rpartition(".")[2] for name in valid}, n=1)
    namesakes = [name for name in valid if name.rpartition(".")[2] in near]
    return suggest("key", key, siblings if siblings and group else namesakes or siblings or valid)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one flat dict of dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


# --- from and to plain dicts --------------------------------------------------------------------


class Origin(NamedTuple):
    """Where a value came from: the key as it was written there (perhaps a macro), and the place."""

    key: str
    place: str


def explain(
    error: ValidationError,
    unknown: Callable[[str], str] = unknown_key,
    origins: Mapping[str, Origin] | None = None,
) -> str:
    """Return pydantic's complaints as one message: key, value, what is valid, where it was set."""
    lines = []
    for item in error.errors(include_url=False):
        dotted = ".".join(part for part in item["loc"] if isinstance(part, str))
        origin = (origins or {}).get(dotted)
        key = origin.key if origin else dotted
        reason = item["msg"].removeprefix("Value error, ").replace("Input should", "should")
        if item["type"] == "extra_forbidden":
            line = unknown(key)
        elif item["type"] == "missing":
            line = f"{key} is missing"
        elif isinstance(item["input"], BaseModel | Mapping):  # a check across keys
            line = f"{key}: {reason}" if key else reason
        else:
            line = f"{key} = {item['input']!r}: {reason}"
        lines.append(f"{line} (set by {origin.place})" if origin else line)
    return "\n".join(dict.fromkeys(lines))


def from_dict(data: Mapping[str, Any], origins: Mapping[str, Origin] | None = None) -> RunConfig:
    """Return the checked configuration of a nested mapping, such as a run's `config.yaml`.

    The block `run:` (versions, device, command line: where the run came from) is left out, and
    the sparsity of a dense network, which means nothing, becomes 0. `origins` says where a dotted
    key was set, for messages. Raises InputError.
    """
    try:
        config = RunConfig.model_validate({k: v for k, v in data.items() if k != "run"})
    except ValidationError as error:
        raise InputError(explain(error, origins=origins)) from None
    dense = {
        name: network.model_copy(update={"sparsity": 0.0})
        for name, network in (("actor", config.actor), ("critic", config.critic))
        if network.dense and not network.match_parameters
    }
    return config.model_copy(update=dense)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as nested dicts, lists and numbers, ready for YAML."""
    return config.model_dump(mode="json")


def identity(config: RunConfig) -> dict[str, Any]:
    """Return the dotted keys and values that make two runs the same run."""
    flat = {k: v for k, v in flatten(to_dict(config)).items() if k not in NOT_IDENTITY}
    return flat | {"env.id": env_name(config.env.id)}


def differences(a: RunConfig, b: RunConfig) -> list[str]:
    """Return the identity keys in which two runs differ, as `key: value of a -> value of b`."""
    first, second = identity(a), identity(b)
    return [f"{k}: {first[k]} -> {second[k]}" for k in first if first[k] != second[k]]


# --- where a run lives --------------------------------------------------------------------------


def env_name(env_id: str) -> str:
    """Return an environment id as a folder name: no module, no `dstrl/`, no slash."""
    return env_id.rpartition(":")[2].removeprefix("dstrl/").replace("/", "-")


def sparsity_label(config: RunConfig) -> str:
    """Return `s0.95`, `a0.96-c0.88` where the networks differ, `s0` where both are dense."""
    actor, critic = (f"{network.sparsity:.10g}" for network in (config.actor, config.critic))
    return f"s{actor}" if actor == critic else f"a{actor}-c{critic}"


def run_path(config: RunConfig, suffix: str = "", *, with_task: bool = False) -> Path:
    """Return a run's folder, relative to `out`: environment, method, sparsity, seed.

    `suffix` follows the method (`+nstep5`). The task is named where it is not 0 or `with_task`.
    """
    env = env_name(config.env.id)
    if with_task or config.env.task:
        env += f".task{config.env.task}"
    method = f"{config.algo}-{config.method}{suffix}"
    return Path(env, method, sparsity_label(config), f"seed{config.seed}")


# --- sizes --------------------------------------------------------------------------------------


def _resolve_network(
    network: NetworkConfig, hidden_sizes: tuple[int, ...], inputs: int, outputs: int
) -> NetworkConfig:
    own = None if network.match_parameters else network.hidden_sizes
    full = [inputs, *(own or hidden_sizes), outputs]
    widths, sparsity = tuple(full[1:-1]), network.sparsity
    if network.lambdas is not None and not network.dense:
        if len(network.lambdas) >= len(full):
            raise InputError(f"{len(network.lambdas)} lambdas are given for {len(full) - 1} layers")
        sparsity = lambda_sparsity(full, network.lambdas)
    if network.match_parameters:
        target = round((1 - sparsity) * sum(layer_weights(full)))
        widths = network.hidden_sizes or matched_widths(inputs, outputs, hidden_sizes, target)
    return network.model_copy(update={"hidden_sizes": widths, "sparsity": sparsity})


def resolve_sizes(config: RunConfig, observation_size: int, action_size: int) -> RunConfig:
    """Return the configuration with the widths of both networks, and lambdas as a sparsity.

    Widths that are already given stay, also with `match_parameters`: resolving twice changes
    nothing. Raises InputError where no network fits the sparsity.
    """
    both = observation_size + action_size
    shapes = {
        "actor": (observation_size, action_size * ACTOR_OUTPUTS[config.algo]),
        "critic": (both, 1),
    }
    resolved = {}
    for name, (inputs, outputs) in shapes.items():
        try:
            network = getattr(config, name)
            resolved[name] = _resolve_network(network, config.hidden_sizes, inputs, outputs)
        except InputError as error:
            raise InputError(f"{name}.sparsity = {network.sparsity:g}: {error}") from None
    return config.model_copy(update=resolved)


def network_sizes(
    config: RunConfig, observation_size: int, action_size: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return all layer sizes of the actor and of one critic, from the input to the output."""
    full = resolve_sizes(config, observation_size, action_size)
    actor = (observation_size, *(full.actor.hidden_sizes or ()))
    critic = (observation_size + action_size, *(full.critic.hidden_sizes or ()), 1)
    return (*actor, action_size * ACTOR_OUTPUTS[config.algo]), critic
