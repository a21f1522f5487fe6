"""What topology updates and buffer checks cost, measured and by the papers' formulas.

RLX (App. C.3.2, iii) calls both negligible, by formulas; XU (Sec. IV-D) gives the order of the
operations of importance. Measured is the processor time of single updates, which other programs
lengthen little: of one in which the topology of a network changes, less that of one without. To see
enough of them, topologies change far more often than the method says; the cost over a whole run is
then counted with the method's own intervals.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dstrl_cli.algos import flops
from dstrl_cli.bench.plan import SETTINGS, Work
from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.network_sizes import network_sizes
from dstrl_cli.config.resolving import resolve
from dstrl_cli.config.windows import updates_apart
from dstrl_cli.errors import InputError
from dstrl_cli.nets.choice import choose
from dstrl_cli.registry import algorithm
from dstrl_cli.sweep.plan import layer_budgets, prepare
from dstrl_cli.training.run import Run

if TYPE_CHECKING:
    from dstrl_cli.bench.work import Training

METHODS = ("dst", "rigl", "rlx2", "our-rlx2")
"""Methods that are measured where `--dst` names none."""

OFTEN = {"critic": 6, "actor": 5}
"""Updates of a network between two changes while it is measured: mostly not in the same update."""

MEASURED = (
    "learning_starts=4096",
    *(f"{role}.topology.update_interval={often}" for role, often in OFTEN.items()),
    "topology.update_offset=0",
    "buffer.distance_threshold=1000000000",
)
"""Keys of what is measured: there is enough in the buffer to compare, and nothing is dropped."""

CHECKS = 20
"""Buffer checks that are timed."""


@dataclass(frozen=True)
class Cost:
    """What one kind of event costs, of one method.

    Attributes:
        what: `critics`, `actor` (their topology updates) or `buffer check`.
        every: environment steps from one to the next, by the method.
        milliseconds: median processor time of one, beyond that of an ordinary update; None: it
            never happens.
        share: of the time of all updates of a run, measured.
        flops_share: of the FLOPs of a training iteration, by RLX's formula.
        operations: of computing importance once, by XU's count; None: there is none.
    """

    what: str
    every: int
    milliseconds: float | None
    share: float | None
    flops_share: float
    operations: int | None = None


@dataclass(frozen=True)
class MethodCosts:
    """What a method's updates cost: an ordinary one in milliseconds, and the rest beside it."""

    algo: str
    method: str
    env: str
    engine: str
    sparsity: tuple[float, float]
    update_ms: float
    costs: tuple[Cost, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each kind of event."""
        own = {
            key: value for key, value in asdict(self).items() if key not in ("costs", "sparsity")
        }
        own |= {"actor_sparsity": self.sparsity[0], "critic_sparsity": self.sparsity[1]}
        return [own | asdict(cost) for cost in self.costs]


def plan(
    algos: Sequence[str],
    methods: Sequence[str],
    env: str | None,
    sparsity: float | None,
    engine: str | None,
    sets: Sequence[str],
) -> list[tuple[RunConfig, Run]]:
    """Return each method's own configuration, and what is measured of it. Raises InputError."""
    flags = {"env.id": env, "sparsity": sparsity, "engine": engine, "device": "cpu"}
    found = []
    for algo in algos:
        for method in methods or METHODS:
            own = prepare(resolve(method, algo, sets=sets, flags=flags), Path())
            often = prepare(
                resolve(method, algo, sets=[*SETTINGS, *sets, *MEASURED], flags=flags), Path()
            )
            if not algorithm(algo).critics:
                raise InputError(f"--algo {algo}: it has no critics, whose topology is measured")
            if not any(getattr(own.config, role).changes_topology for role in OFTEN):
                raise InputError(f"--dst {method}: no topology of its changes")
            found.append((own.config, often))
    return found


def measure(own: RunConfig, run: Run, updates: int, tell: Callable[[str], None]) -> MethodCosts:
    """Measure a method; `own` is its configuration, `run` what is trained for it."""
    from dstrl_cli.bench.work import Training

    engine = choose(run.config, "cpu", tell).engine
    config = run.config.model_copy(update={"engine": engine})
    with TemporaryDirectory(prefix="dstrl-bench-") as folder:
        training = Training(Work("update", config=config), Path(folder))
        times = single_updates(training, updates)
        check = buffer_check(training) if config.buffer.dynamic else None
    ordinary = {due: median(found) for (due, changed), found in times.items() if not changed}
    delay = config.policy_delay
    if not ordinary or (delay > 1 and True not in ordinary):
        raise InputError(
            f"policy_delay = {delay}: every update of the actor would fall together with a change "
            f"of a topology, so that none is left to compare with; choose another one"
        )
    mean = (ordinary[True] + (delay - 1) * ordinary.get(False, ordinary[True])) / delay
    theory = flops_shares(own, run)
    costs = []
    for role, name in (("critic", "critics"), ("actor", "actor")):
        network: NetworkConfig = getattr(own, role)
        if not network.changes_topology:
            continue
        each = {due: found for (due, changed), found in times.items() if changed == (role,)}
        extra = [median(found) - ordinary[due] for due, found in each.items()]
        every = network.topology.update_interval * updates_apart(own, role)
        found = max(0.0, median(extra)) if extra else None
        share = None if found is None else found / (every * mean + found)
        count = importance_operations(own, run) if "importance" in network.topology.grow else None
        costs.append(Cost(name, every, found, share, theory[role], count))
    if check is not None:
        every = own.buffer.check_interval
        costs.append(
            Cost("buffer check", every, check, check / (every * mean + check), theory["buffer"])
        )
    sparsity = (own.actor.sparsity, own.critic.sparsity)
    return MethodCosts(own.algo, own.method, own.env.id, engine, sparsity, mean, tuple(costs))


def single_updates(
    training: Training, updates: int
) -> Mapping[tuple[bool, tuple[str, ...]], Sequence[float]]:
    """Return the milliseconds of processor time of single updates, by their kind.

    That is whether the actor is updated, and which networks' topologies change.
    """
    population = training.population
    algorithm_ = population.algorithm
    networks = {"actor": algorithm_.actor, "critic": algorithm_.critic}
    found: dict[tuple[bool, tuple[str, ...]], list[float]] = defaultdict(list)
    for _ in range(updates):
        before = len(population.recorder.changes)
        began = time.process_time()
        population.update()
        took = 1000 * (time.process_time() - began)
        new = {id(each.network) for each in population.recorder.changes[before:]}
        changed = tuple(role for role, network in networks.items() if id(network) in new)
        found[algorithm_.updates % algorithm_.config.policy_delay == 0, changed].append(took)
    return found


def buffer_check(training: Training) -> float:
    """Return the median milliseconds of a check of the dynamic buffer that drops nothing."""
    population = training.population
    found = []
    for _ in range(CHECKS):
        began = time.process_time()
        population.capacity.check(0, population.replay, population.algorithm.act)
        found.append(1000 * (time.process_time() - began))
    return median(found)


def flops_shares(config: RunConfig, run: Run) -> dict[str, float]:
    """Return the FLOPs of topology evolution and buffer checks over those of training.

    RLX App. C.3.2: per iteration and sample 2 F_A / ((1 - S_a) Delta_m) for the actor, 4 F_C /
    ((1 - S_c) Delta_m) for the critics, and 8 F_A / Delta_b for the buffer, where F is a forward
    pass of the sparse network; beside them eq. 13.
    """
    budgets = layer_budgets(config, run.spec)
    a, c = (flops.forward_flops(budgets[role]) for role in ("actor", "critic"))
    sizes = network_sizes(config, run.spec.observation_size, run.spec.action_size)
    dense_a, dense_c = (flops.forward_flops([flops.weights(each)]) for each in sizes)
    row, delay = algorithm(config.algo), config.policy_delay
    train = flops.flops_per_sample(row, a, c, policy_delay=delay, nstep=config.nstep)
    return {
        "actor": 2 * dense_a / config.actor.topology.update_interval / train,
        "critic": 4 * dense_c / config.critic.topology.update_interval / train,
        "buffer": config.buffer.check_batches * a / config.buffer.check_interval / train,
    }


def importance_operations(config: RunConfig, run: Run) -> int:
    """Return the operations of one pass over both critics by XU's count (Sec. IV-D).

    O(N + m H + n H + k H + p + q + r): N samples' TD errors, an addition for each connection of
    each neuron (the first layer counts twice: inputs gather outgoing ones, hidden units incoming
    ones), and a multiplication for each connection.
    """
    budgets = layer_budgets(config, run.spec)["critic"]
    critics = algorithm(config.algo).critics
    return critics * (config.batch_size + sum(budgets) + budgets[0] + sum(budgets))
