"""RunConfig and its parts: immutable models of one run, checked when they are made.

This file knows keys, types, bounds and names, and nothing of preset files (`presets`) or of the
lists and ranges of a command line (`ranges`). It imports neither torch nor gymnasium.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from dstrl_cli.config import limits
from dstrl_cli.config.fields import (
    Bounds,
    Device,
    Fraction,
    GradientSteps,
    Interval,
    Lambdas,
    LearningRate,
    LinearRate,
    MetricName,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Real,
    Seed,
    Sparsities,
    Sparsity,
    TargetEntropy,
    Threads,
    TrainFreq,
    Whole,
    Widths,
    Workers,
    named,
    one_of,
)
from dstrl_cli.config.parts import BufferConfig, EnvConfig, Model, env_shorthand
from dstrl_cli.config.ranges import MAX_LENGTH
from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.config.starts import STARTS
from dstrl_cli.registry import (
    ALGORITHMS,
    ALLOCATIONS,
    ENGINES,
    INITIAL_MASKS,
    SCORES,
    is_outside,
)

MAX_NSTEP = 20
"""The largest n of n-step targets."""

Length = Annotated[Whole, Field(ge=1, le=MAX_LENGTH)]
"""How long a run is, in environment steps or in episodes."""

ALL_ACTIVE_KEYS = ("dense", "match_parameters")
"""Keys of a network each of which makes all its connections active."""

BY_LAYER = {
    "lambda": ("lambdas", "one per layer from the input on, as in [7, 64]"),
    "layers": ("layers", "a sparsity for each layer from the input on, as in [0.8, 0, 0]"),
}
"""Allocations by a key of the layers, from which the network's sparsity follows; that key, and
what it holds."""

# --- the models ---------------------------------------------------------------------------------


class NetworkConfig(Model):
    """One network (the actor, or the twin critics): how sparse, how wide, and its topology rule.

    `dense` ignores `sparsity`. `match_parameters` makes the network dense and so narrow that it has
    about as many weights as a network of that sparsity has connections. `hidden_sizes: null` means
    the run's. A budget that moves begins at `initial_sparsity`. `layers` are the sparsities of
    single layers, from the input on, for `allocation: layers`. Every `redo_interval` of its own
    updates the network's dormant units begin anew, those whose activity is at most
    `redo_threshold` of their layer's; null: never (`training.recycling`).
    """

    sparsity: Sparsity = 0.0
    initial_sparsity: Sparsity | None = None
    dense: bool = False
    match_parameters: bool = False
    hidden_sizes: Widths | None = None
    allocation: Annotated[str, one_of("allocation", ALLOCATIONS)] = "erdos_renyi"
    lambdas: Lambdas | None = None
    layers: Sparsities | None = None
    initial_mask: Annotated[str, named("initial mask", INITIAL_MASKS)] = "random"
    topology: TopologyConfig = TopologyConfig()
    redo_interval: PositiveInt | None = None
    redo_threshold: NonNegativeFloat = 0.025

    @property
    def all_active(self) -> bool:
        """Whether every connection is active, whatever `sparsity` says."""
        return any(getattr(self, key) for key in ALL_ACTIVE_KEYS)

    @property
    def ignores_sparsity(self) -> bool:
        """Whether `sparsity` says nothing: all connections are active, and the widths are given."""
        return self.dense and not self.match_parameters

    @property
    def changes_topology(self) -> bool:
        """Whether the rule acts: it swaps connections or moves the budget of a sparse network."""
        acts = self.topology.schedule != "static" or self.topology.moves_budget
        return not self.all_active and acts

    @property
    def moves_budget(self) -> bool:
        """Whether the number of connections changes in the course of training."""
        return not self.all_active and self.topology.moves_budget

    @property
    def fixes_sparsity(self) -> bool:
        """Whether the sparsity follows from keys of the layers, and cannot be chosen."""
        return self.allocation in BY_LAYER or self.topology.n_of_m is not None

    @property
    def is_extended(self) -> bool:
        """Whether it names code of a user's own (`module:Name`), or has parameters for it.

        `topology.extensions` checks that code when a run is about to start.
        """
        rule = self.topology
        names = (self.initial_mask, rule.drop, rule.grow, rule.schedule, rule.budget)
        return bool(rule.params) or any(map(is_outside, names))

    @model_validator(mode="after")
    def _layers_fit_allocation(self) -> NetworkConfig:
        for allocation, (key, content) in BY_LAYER.items():
            given = getattr(self, key) is not None
            if self.allocation == allocation and not given:
                raise ValueError(f"allocation: {allocation} needs {key}, {content}")
            if self.allocation != allocation and given:
                raise ValueError(
                    f"{key} has no effect with allocation: {self.allocation}; "
                    f"set allocation: {allocation}, or leave {key} out"
                )
        return self

    @model_validator(mode="after")
    def _n_of_m_is_met(self) -> NetworkConfig:
        if self.topology.n_of_m is not None and not self.all_active:
            fixed_by, _ = BY_LAYER.get(self.allocation, (None, None))
            if reason := limits.unmet(self.topology.n_of_m, fixed_by, self.initial_mask):
                raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _budget_has_a_way(self) -> NetworkConfig:
        rule, first = self.topology, self.initial_sparsity
        if self.all_active:
            return self
        if self.initial_mask == "dense" and (first if rule.moves_budget else self.sparsity):
            raise ValueError(
                "initial_mask: dense starts with all connections: set topology.budget to cubic, "
                "linear or at_once with initial_sparsity: 0, or another initial_mask"
            )
        if first is None:
            if rule.moves_budget:
                raise ValueError(
                    f"topology.budget: {rule.budget} needs initial_sparsity, from which it moves; "
                    "0 starts dense"
                )
            return self
        if not rule.moves_budget:
            raise ValueError(
                f"initial_sparsity = {first:g}: with topology.budget: constant the sparsity stays "
                "as it is; leave initial_sparsity out, or set topology.budget to cubic, linear or "
                "at_once"
            )
        if rule.grow == "none" and first > self.sparsity and not self.fixes_sparsity:
            raise ValueError(
                f"initial_sparsity = {first:g} is above the final sparsity = {self.sparsity:g}: "
                "the number of connections would rise, and topology.grow is none; lower "
                "initial_sparsity, or set topology.grow, as to random"
            )
        if self.fixes_sparsity and first > 0:
            raise ValueError(
                f"initial_sparsity = {first:g}: allocation: {self.allocation} knows one sparsity "
                "only; set initial_sparsity: 0, which starts dense, or another allocation"
            )
        if self.initial_mask == "bernoulli":
            raise ValueError(
                f"initial_mask: bernoulli draws the number of connections, which topology.budget: "
                f"{rule.budget} counts exactly; set initial_mask: random"
            )
        return self


class RunConfig(Model):
    """One run: an algorithm, a method, an environment and a seed, with every key resolved.

    Defaults are TD3's of the shared base; `presets/algos` states every one with its source.
    Training ends after `steps` or after `episodes`, whichever comes first; null leaves it to the
    steps, which also bound the replay buffer.
    `gradient_steps` updates (-1: as many as environment steps since) follow every `train_freq`
    steps, or episodes: as in Stable-Baselines3.
    `init_mask_from` and `init_weights_from` are a run's folder or policy file: the networks start
    with its masks, those at its end, and with its weights, those that it began with. `expert` is
    the run whose policy behaviour cloning imitates, `expert_q` the one whose critics give the
    targets of this run's critics, and `prefill_from` the one whose policy takes the first
    `learning_starts` steps, with normal noise of `prefill_noise`. `{seed}` in these five stands for
    the run's seed. What was found there (`init_mask_source`, ...) is filled in.
    `init_weights_from: fresh` draws other weights than a run of this seed does.
    `threads: auto` gives a run a second thread where the machine has two cores for it and it gains
    time (`nets.choice.threads_for`). `env_workers` are processes that step environments (0: none,
    the run's own process), and `replay_device: auto` keeps the replay buffer beside the networks.
    An episode that terminates at exactly its time limit counts as terminated, or as cut off by the
    limit with `limit_wins`; an evaluation episode that has not ended after `eval_max_steps` is
    ended there. A hidden unit counts as dormant in `neurons.csv` whose activity is at most
    `dormant_threshold` of its layer's.
    `checkpoint_every` is a number of steps or a time (`10m`; 0: never), and `keep_checkpoint` keeps
    the last checkpoint of a finished run. `tensorboard` and `wandb` also write curves for these
    two. `metric` is what tables of the run show unless they are
    asked for another; `method_label` and `method_order` are how they name and sort a user's own
    method.
    """

    algo: Annotated[str, named("algorithm", ALGORITHMS)]
    method: Name
    env: Annotated[EnvConfig, BeforeValidator(env_shorthand)]
    seed: Seed = 0
    steps: Length = 1_000_000
    episodes: Length | None = None

    learning_starts: NonNegativeInt = 25_000
    train_freq: TrainFreq = 1
    gradient_steps: GradientSteps = 1
    learning_rate: LearningRate = 3e-4
    weight_decay: NonNegativeFloat = 0.0
    batch_size: Annotated[Whole, Field(ge=1, le=10_000_000)] = 256
    gamma: Annotated[Real, Field(ge=0, le=1)] = 0.99
    limit_wins: bool = False
    tau: Fraction = 0.005
    policy_delay: PositiveInt = 2
    target_update_interval: PositiveInt = 1
    buffer_size: PositiveInt = 1_000_000
    hidden_sizes: Widths = (256, 256)
    weight_init: Literal["fan_in", "orthogonal", "xavier"] = "fan_in"
    init_mask_from: Name | None = None
    init_mask_source: Name | None = None
    init_weights_from: Name | None = None
    init_weights_source: Name | None = None
    expert: Name | None = None
    expert_source: Name | None = None
    expert_q: Name | None = None
    expert_q_source: Name | None = None
    prefill_from: Name | None = None
    prefill_source: Name | None = None
    prefill_noise: NonNegativeFloat = 0.1

    exploration_noise: NonNegativeFloat = 0.1
    target_noise: NonNegativeFloat = 0.2
    target_noise_clip: NonNegativeFloat = 0.5

    temperature: Literal["learned", "fixed"] = "learned"
    alpha: PositiveFloat = 1.0
    target_entropy: TargetEntropy = None
    log_std_squash: Literal["tanh", "clamp"] = "tanh"
    log_std_bounds: Bounds = (-5.0, 2.0)
    collect: Literal["stochastic", "mean"] = "stochastic"

    nstep: Annotated[Whole, Field(ge=1, le=MAX_NSTEP)] = 1
    nstep_delay: NonNegativeInt = 0
    buffer: BufferConfig = BufferConfig()
    rewire: Literal["after_step", "instead_of_step"] = "after_step"
    target_masking: Literal["none", "online_mask", "magnitude_trim"] = "none"
    target_trim: Literal["budget", "nonzero"] = "budget"
    gradients: Literal["masked", "dense"] = "masked"
    moments: Literal["reset", "keep"] = "reset"
    grown_bias_correction: Literal["network", "connection"] = "network"
    initial_targets: Literal["sparse", "dense"] = "sparse"

    actor: NetworkConfig = NetworkConfig()
    critic: NetworkConfig = NetworkConfig()

    eval_every: PositiveInt = 5_000
    eval_episodes: Annotated[Whole, Field(ge=1, le=1_000_000)] = 10
    eval_max_steps: PositiveInt | None = 10_000
    dormant_threshold: NonNegativeFloat = 0.025
    checkpoint_every: Interval = "10m"
    keep_checkpoint: bool = False
    device: Device = "auto"
    engine: Annotated[str, one_of("engine", ("auto", *ENGINES))] = "auto"
    threads: Threads = "auto"
    env_workers: Workers = "auto"
    replay_device: Literal["auto", "cpu"] = "auto"
    compile: bool = False
    tensorboard: bool = False
    wandb: bool = False
    out: Name = "results"

    metric: MetricName | None = None
    method_label: Name | None = None
    method_order: Whole | None = None

    @property
    def thread_count(self) -> int:
        """Threads of the run; one where nothing has chosen for `auto`."""
        return 1 if self.threads == "auto" else self.threads

    @property
    def corrects_by_connection(self) -> bool:
        """Whether Adam's bias correction counts the steps since a connection was grown.

        Where the moments of a grown connection are kept, they do not start anew, nor does their
        correction.
        """
        return self.grown_bias_correction == "connection" and self.moments == "reset"

    @property
    def trains_after_episodes(self) -> bool:
        """Whether `train_freq` counts episodes, and not environment steps."""
        return isinstance(self.train_freq, tuple)

    @property
    def train_every(self) -> int:
        """Environment steps, or episodes, from one training to the next."""
        return self.train_freq[0] if isinstance(self.train_freq, tuple) else self.train_freq

    def updates_until(self, step: int) -> int:
        """Return the updates of the critics up to an environment step; negative before the first.

        How long episodes are is not known: after episodes, `gradient_steps: -1` is about one update
        for every step, and a fixed number is counted as if every step ended an episode.
        """
        every = 1 if self.trains_after_episodes else self.train_every
        trainings = step // every - self.learning_starts // every
        return trainings * (every if self.gradient_steps < 0 else self.gradient_steps)

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of the updates that follow an environment step."""
        rate = self.learning_rate
        return rate.linear * (1 - step / self.steps) if isinstance(rate, LinearRate) else rate

    @property
    def replay_capacity(self) -> int:
        """Transitions that the replay buffer holds: never more than the run has steps."""
        return min(self.buffer_size, self.steps)

    @model_validator(mode="after")
    def _bounds_ordered(self) -> RunConfig:
        low, high = self.log_std_bounds
        if low >= high:
            raise ValueError(
                f"log_std_bounds: [{low:g}, {high:g}] must be ordered, the lower bound first"
            )
        return self

    @model_validator(mode="after")
    def _sources_have_places(self) -> RunConfig:
        for row in STARTS.values():
            if getattr(self, row.source) and not getattr(self, row.key):
                raise ValueError(
                    f"{row.source} says what was found at {row.key}, which is not set; leave it "
                    f"out, or set {row.key}"
                )
        return self

    @model_validator(mode="after")
    def _actor_scores(self) -> RunConfig:
        for key in ("drop", "grow"):
            score = getattr(self.actor.topology, key)
            if score in SCORES and SCORES[score].needs_td_error:
                raise ValueError(
                    f"actor.topology.{key}: {score} needs the TD error of a critic; "
                    f"set critic.topology.{key} instead"
                )
        return self
