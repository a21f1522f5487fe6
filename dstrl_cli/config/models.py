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

    Dormant units are recycled by `training.recycling`; `redo_interval` counts the network's own
    updates.
    """

    sparsity: Sparsity = 0.0
    """Share of its connections that are inactive; at the end, where the budget moves."""
    initial_sparsity: Sparsity | None = None
    """The sparsity that a moving budget begins at."""
    dense: bool = False
    """All connections are active, whatever `sparsity` says."""
    match_parameters: bool = False
    """Dense, and so narrow that it has as many weights as one of that sparsity has connections."""
    hidden_sizes: Widths | None = None
    """Units of its hidden layers; null: the run's."""
    allocation: Annotated[str, one_of("allocation", ALLOCATIONS)] = "erdos_renyi"
    """How the sparsity is divided among layers."""
    lambdas: Lambdas | None = None
    """One per layer from the input on, for `allocation: lambda` (XU eq. 11)."""
    layers: Sparsities | None = None
    """The sparsity of each layer from the input on, for `allocation: layers`."""
    initial_mask: Annotated[str, named("initial mask", INITIAL_MASKS)] = "random"
    """Which connections are active at first."""
    topology: TopologyConfig = TopologyConfig()
    """How the topology changes."""
    redo_interval: PositiveInt | None = None
    """Updates after which its dormant units begin anew (ReDo); null: never."""
    redo_threshold: NonNegativeFloat = 0.025
    """Mean activity, over its layer's, up to which a unit is dormant and begins anew."""

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
    `steps` also bound the replay buffer. A run that another one starts from (`init_mask_from`, ...)
    is named by its folder or its policy file. `nets.choice` chooses engine and threads for `auto`.
    """

    algo: Annotated[str, named("algorithm", ALGORITHMS)]
    """The algorithm."""
    method: Name
    """The method, whose file gives the other keys."""
    env: Annotated[EnvConfig, BeforeValidator(env_shorthand)]
    """The environment."""
    seed: Seed = 0
    """The seed of everything that is random."""
    steps: Length = 1_000_000
    """Environment steps of the run."""
    episodes: Length | None = None
    """Training episodes; the run ends with them or with `steps`, whichever comes first."""

    learning_starts: NonNegativeInt = 25_000
    """Environment steps before the first update, with random actions."""
    train_freq: TrainFreq = 1
    """Environment steps, or episodes, between trainings."""
    gradient_steps: GradientSteps = 1
    """Updates of a training; -1: as many as environment steps since the last."""
    learning_rate: LearningRate = 3e-4
    """Adam's; `{linear: X}` falls from X to 0 at the last step."""
    weight_decay: NonNegativeFloat = 0.0
    """L2 penalty that Adam adds to gradients."""
    batch_size: Annotated[Whole, Field(ge=1, le=10_000_000)] = 256
    """Transitions of an update."""
    gamma: Annotated[Real, Field(ge=0, le=1)] = 0.99
    """Discount of a step."""
    limit_wins: bool = False
    """An episode that terminates at exactly its time limit counts as cut off by it."""
    tau: Fraction = 0.005
    """Share of the online weights that target networks take over."""
    policy_delay: PositiveInt = 2
    """Updates of the critics for one of the actor."""
    target_update_interval: PositiveInt = 1
    """Updates between those of the target networks."""
    buffer_size: PositiveInt = 1_000_000
    """Transitions of the replay buffer, at most."""
    hidden_sizes: Widths = (256, 256)
    """Units of the hidden layers of both networks."""
    weight_init: Literal["fan_in", "orthogonal", "xavier"] = "fan_in"
    """How first weights are drawn."""
    init_mask_from: Name | None = None
    """A run whose last masks the networks start with; `{seed}` is the run's seed."""
    init_mask_source: Name | None = None
    """What was found there, filled in."""
    init_weights_from: Name | None = None
    """A run whose first weights the networks start with; `fresh`: other ones than the seed's."""
    init_weights_source: Name | None = None
    """What was found there, filled in."""
    expert: Name | None = None
    """A run whose policy behaviour cloning imitates."""
    expert_source: Name | None = None
    """What was found there, filled in."""
    expert_q: Name | None = None
    """A run whose critics give the targets of this run's."""
    expert_q_source: Name | None = None
    """What was found there, filled in."""
    prefill_from: Name | None = None
    """A run whose policy takes the first `learning_starts` steps."""
    prefill_source: Name | None = None
    """What was found there, filled in."""
    prefill_noise: NonNegativeFloat = 0.1
    """Standard deviation of the noise on the actions of `prefill_from`."""

    exploration_noise: NonNegativeFloat = 0.1
    """TD3: standard deviation of the noise on actions in [-1, 1]."""
    target_noise: NonNegativeFloat = 0.2
    """TD3: standard deviation of the noise on target actions."""
    target_noise_clip: NonNegativeFloat = 0.5
    """TD3: the largest noise on target actions."""

    temperature: Literal["learned", "fixed"] = "learned"
    """SAC: whether alpha is learned."""
    alpha: PositiveFloat = 1.0
    """SAC: the temperature, or where its learning begins."""
    target_entropy: TargetEntropy = None
    """SAC: what learning alpha aims at; null: minus the size of an action."""
    log_std_squash: Literal["tanh", "clamp"] = "tanh"
    """SAC: how the logarithm of the standard deviation is kept in its bounds."""
    log_std_bounds: Bounds = (-5.0, 2.0)
    """SAC: bounds of the logarithm of the standard deviation."""
    collect: Literal["stochastic", "mean"] = "stochastic"
    """SAC: whether training acts by samples or by means."""

    nstep: Annotated[Whole, Field(ge=1, le=MAX_NSTEP)] = 1
    """Steps of the critics' targets (RLx2)."""
    nstep_delay: NonNegativeInt = 0
    """T_0: updates of the critics with one-step targets, before those of `nstep` begin."""
    buffer: BufferConfig = BufferConfig()
    """The dynamic replay buffer."""
    rewire: Literal["after_step", "instead_of_step"] = "after_step"
    """Whether an update that changes the topology also updates the weights."""
    target_masking: Literal["none", "online_mask", "magnitude_trim"] = "none"
    """How masks act on target networks."""
    target_trim: Literal["budget", "nonzero"] = "budget"
    """What `magnitude_trim` keeps: as many as the budget, or as are not zero."""
    gradients: Literal["masked", "dense"] = "masked"
    """Whether Adam sees the gradients of inactive connections (authors' code)."""
    moments: Literal["reset", "keep"] = "reset"
    """Whether a grown connection's moments begin anew."""
    grown_bias_correction: Literal["network", "connection"] = "network"
    """Whether Adam's bias correction of a grown connection begins anew, too."""
    initial_targets: Literal["sparse", "dense"] = "sparse"
    """Whether target networks begin masked."""

    actor: NetworkConfig = NetworkConfig()
    """The actor."""
    critic: NetworkConfig = NetworkConfig()
    """The critics."""

    eval_every: PositiveInt = 5_000
    """Environment steps between evaluations."""
    eval_episodes: Annotated[Whole, Field(ge=1, le=1_000_000)] = 10
    """Episodes of an evaluation."""
    eval_max_steps: PositiveInt | None = 10_000
    """Steps after which an evaluation episode is ended; null: never."""
    dormant_threshold: NonNegativeFloat = 0.025
    """Mean activity, over its layer's, up to which `neurons.csv` counts a unit as dormant."""
    checkpoint_every: Interval = "10m"
    """Environment steps or time between checkpoints; 0: none."""
    keep_checkpoint: bool = False
    """Keep the last checkpoint of a finished run."""
    device: Device = "auto"
    """Where networks are trained."""
    engine: Annotated[str, one_of("engine", ("auto", *ENGINES))] = "auto"
    """Dense tensors with masks, or active connections alone (CPU); auto: the faster one."""
    threads: Threads = "auto"
    """Threads of the run; auto: two where it has the cores and gains time."""
    env_workers: Workers = "auto"
    """Processes that step environments; 0: the run's own."""
    replay_device: Literal["auto", "cpu"] = "auto"
    """Where the replay buffer lies; auto: beside the networks."""
    compile: bool = False
    """Compile updates with torch.compile (accelerators)."""
    tensorboard: bool = False
    """Also write curves for TensorBoard."""
    wandb: bool = False
    """Also write curves for Weights & Biases."""
    out: Name = "results"
    """The results folder."""

    metric: MetricName | None = None
    """What tables of the run show unless they are asked for another."""
    method_label: Name | None = None
    """How tables name a method of your own."""
    method_order: Whole | None = None
    """Where tables sort it."""

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
