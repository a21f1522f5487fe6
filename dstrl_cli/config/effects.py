"""What a configuration will do and what it will not, known before the run starts. No torch.

How often topologies change, how many optimizer steps that costs, which rules never act in a run of
this length, and which keys that were set have no effect because of another key's value. All of it
is accepted and only said, but for keys of an algorithm that no run has (`refuse_unread`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dstrl_cli.config.fields import LinearRate
from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.parse import Origin
from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.config.starts import FRESH
from dstrl_cli.config.windows import update_at, updates, windows
from dstrl_cli.errors import InputError
from dstrl_cli.registry import ALGORITHMS, algorithm, is_outside

ROLES = ("actor", "critic")
NAMES = {"actor": "actor", "critic": "critics"}

SWAP_KEYS = ("drop_fraction", "swap_start", "swap_end")
"""Keys of a rule that say when and how many connections are swapped."""
BUDGET_KEYS = ("budget_start", "budget_end", "swap_of_growth")
"""Keys of a rule that say how its budget moves."""

IMPORTANCE_KEYS = ("accumulate", "td_error", "importance_decay")
"""Keys of a rule that say how a neuron's importance is counted."""

REPLACED_SHARE = 0.01
"""A larger share of optimizer steps that topology updates replace is told."""


def notes(config: RunConfig, explicit: Mapping[str, Origin]) -> list[str]:
    """Return what the user should know of a run: idle rules, lost steps, keys without effect.

    Args:
        config: the configuration.
        explicit: the dotted keys that a preset, `--set` or a flag gave, and how they were written.
    """
    idle = never_acting(config) if updates(config, "critic") else []
    acting = [*replaced_steps(config), *rate_of_steps(config)]
    return [*idle, *acting, *without_effect(config, explicit)]


# --- how often topologies change ----------------------------------------------------------------


def roles_of(config: RunConfig) -> tuple[str, ...]:
    """Return the networks that a run has: an algorithm may have no critics."""
    return ROLES if algorithm(config.algo).critics else ("actor",)


@dataclass(frozen=True)
class TopologyChanges:
    """The topology changes of one network in a run.

    Attributes:
        count: how many.
        last_only_drops: whether the last one of them drops connections and grows none.
    """

    count: int
    last_only_drops: bool = False


def topology_changes(config: RunConfig, role: str) -> TopologyChanges:
    """Return how often the topology of a network changes in the run.

    A change is due at the network's own update `update_offset` (with 0, at `update_interval`) and
    every `update_interval` from there on, before the update at which `stop_before_end` begins.
    With `final_drop` the first one due after that still happens, but only drops. Where the budget
    moves, intervals are counted from where it begins, and one change more is due where it arrives.
    """
    network: NetworkConfig = getattr(config, role)
    if not network.changes_topology or role not in roles_of(config):
        return TopologyChanges(0)
    found = windows(config, role)
    drops = found.drops_at_last()
    return TopologyChanges(found.count() + drops, drops)


def training_in_words(config: RunConfig) -> str:
    """Return when a run trains and how much: `64 updates after every 64 steps`."""
    every, unit = config.train_every, "episode" if config.trains_after_episodes else "step"
    after = f"every {unit}" if every == 1 else f"every {every:,} {unit}s"
    if config.gradient_steps < 0:
        return f"as many updates as steps after {after}"
    updates = "1 update" if config.gradient_steps == 1 else f"{config.gradient_steps:,} updates"
    return f"{updates} after {after}"


def changes_in_words(config: RunConfig) -> str:
    """Return how often the topologies change in the run: `changes 9 times in the critics, ...`."""
    fixed: dict[str, str] = {}
    changing: list[str] = []
    total = 0
    for role in reversed(roles_of(config)):
        network: NetworkConfig = getattr(config, role)
        if network.changes_topology:
            found = topology_changes(config, role)
            total += found.count
            often = {0: "never", 1: "once"}.get(found.count, f"{found.count:,} times")
            if config.episodes is not None and found.count:  # episodes may end early
                often = f"at most {often}"
            drop = " (the last one only drops)" if found.last_only_drops else ""
            changing.append(f"{often} in the {NAMES[role]}{drop}")
        else:
            fixed[role] = "dense" if network.all_active else "static"
    if not changing:
        same = len(set(fixed.values())) == 1
        return fixed["actor"] if same else f"critics {fixed['critic']}, actor {fixed['actor']}"
    often = f"changes {', '.join(changing)}" if total else "never changes"
    parts = [often, *(f"{NAMES[role]} {how}" for role, how in fixed.items())]
    return "; ".join(parts)


def replaced_steps(config: RunConfig) -> list[str]:
    """Return which share of a network's optimizer steps topology updates replace, where it is much.

    With `rewire: instead_of_step` each topology update takes the place of an optimizer step.
    """
    shares: dict[str, list[str]] = {}
    for role in roles_of(config):
        total, changes = updates(config, role), topology_changes(config, role).count
        if config.rewire == "instead_of_step" and changes > REPLACED_SHARE * total:
            shares.setdefault(f"{100 * changes / total:.2g} %", []).append(role)
    if not shares:
        return []
    said = ", ".join(
        f"{share} of those of the {named_networks(roles)}" for share, roles in shares.items()
    )
    return [
        f"topology updates replace optimizer steps (rewire is instead_of_step): {said}; raise "
        "topology.update_interval, or set rewire=after_step"
    ]


def rate_of_steps(config: RunConfig) -> list[str]:
    """Return that a learning rate follows the steps, where episodes may end the run before."""
    if config.episodes is None or not isinstance(config.learning_rate, LinearRate):
        return []
    return [
        f"learning_rate falls to 0 at step {config.steps:,}, at whichever step the "
        f"{config.episodes:,} episodes end; set steps to about that many"
    ]


# --- rules that never act -----------------------------------------------------------------------


def never_acting(config: RunConfig) -> list[str]:
    """Return what is switched on but never acts in a run of this length, and why."""
    idle = [*_idle_rules(config), *_idle_nstep(config), *_idle_buffer(config)]
    return [*idle, *_idle_recycling(config)]


def _idle_rules(config: RunConfig) -> Iterator[str]:
    """Say which rules never act, or act once at the most because they are stopped before."""
    training = config.steps - config.learning_starts
    stopped: dict[str, list[str]] = {}
    too_late: dict[tuple[str, int, str], list[str]] = {}  # by the key that sets the first change
    for role in roles_of(config):
        network: NetworkConfig = getattr(config, role)
        if not network.changes_topology:
            continue
        rule, changes = network.topology, topology_changes(config, role)
        if rule.stop_before_end >= training:
            often = "never changes"
            if changes.count:
                often = "changes once by dropping alone, then stays as it is"
            stop = f"stop_before_end ({rule.stop_before_end:,} steps)"
            said = f"{often}: {stop} is no less than the {training:,} steps of training"
            stopped.setdefault(said, []).append(role)
        elif not changes.count and (reason := _without_swaps(config, role)):
            stopped.setdefault(f"never changes: {reason}", []).append(role)
        elif not changes.count:
            beyond = rule.update_offset >= windows(config, role).swap[1]
            key = "update_offset" if beyond else "update_interval"
            which = "" if _swaps_always(rule) else " between swap_start and swap_end"
            too_late.setdefault((key, getattr(rule, key), which), []).append(role)
    for said, roles in stopped.items():
        yield f"the topology of the {named_networks(roles)} {said}"
    for (key, first, which), roles in too_late.items():
        prefix = "" if len(roles) > 1 else f"{roles[0]}."
        have = " and ".join(f"{_changeable(config, r)} ({NAMES[r]})" for r in roles)
        yield (
            f"the topology of the {named_networks(roles)} never changes: {key} is {first:,}, and "
            f"updates{which} are {have}; lower it with --set {prefix}topology.{key}=N"
        )


def _without_swaps(config: RunConfig, role: str) -> str | None:
    """Return why no interval lets a network swap connections, and what helps; None if one does."""
    rule, found = getattr(config, role).topology, windows(config, role)
    start, end = found.swap
    if end - start > 1:
        return None
    if found.total < 2:
        return "the run has too few updates; raise --steps"
    if found.end < update_at(rule.swap_end, found.total):
        return (
            f"stop_before_end ({rule.stop_before_end:,} steps) leaves no update after swap_start = "
            f"{rule.swap_start:g}; lower stop_before_end, or swap_start"
        )
    return (
        f"no update lies between swap_start = {rule.swap_start:g} and swap_end = "
        f"{rule.swap_end:g}; lower swap_start, or raise swap_end"
    )


def _swaps_always(rule: TopologyConfig) -> bool:
    return (rule.swap_start, rule.swap_end) == (0, 1)


def _changeable(config: RunConfig, role: str) -> str:
    """Return in words how many updates of a network may swap connections, and which."""
    start, end = windows(config, role).swap
    if _swaps_always(getattr(config, role).topology):
        return f"{end:,}"
    return f"{end - start - 1:,} from {start + 1:,} on"


def named_networks(roles: Sequence[str]) -> str:
    """Return the networks in words: `actor and the critics`."""
    return " and the ".join(NAMES[role] for role in roles)


def _idle_nstep(config: RunConfig) -> Iterator[str]:
    total = updates(config, "critic")
    if config.nstep > 1 and config.nstep_delay > total:
        yield (
            f"targets of {config.nstep} steps never begin: nstep_delay is {config.nstep_delay:,}, "
            f"and there are {total:,} updates of the critics; lower it with --set nstep_delay=N"
        )


def _idle_recycling(config: RunConfig) -> Iterator[str]:
    for role in roles_of(config):
        interval, total = getattr(config, role).redo_interval, updates(config, role)
        if interval is not None and interval > total:
            yield (
                f"dormant units of the {NAMES[role]} never begin anew: redo_interval is "
                f"{interval:,}, and there are {total:,} updates; lower it with "
                f"--set {role}.redo_interval=N"
            )


def _idle_buffer(config: RunConfig) -> Iterator[str]:
    buffer, held = config.buffer, config.replay_capacity
    if not buffer.dynamic:
        return
    if buffer.check_interval > config.steps:
        yield (
            f"the dynamic buffer is never checked: buffer.check_interval is "
            f"{buffer.check_interval:,} steps, and the run has {config.steps:,}"
        )
    elif buffer.min_size >= held:
        yield (
            f"the dynamic buffer never shrinks: buffer.min_size is {buffer.min_size:,}, and it "
            f"holds {held:,} transitions at most"
        )


# --- keys without effect ------------------------------------------------------------------------


def without_effect(config: RunConfig, explicit: Mapping[str, Origin]) -> list[str]:
    """Return which of the explicit keys have no effect, and why; keys of one reason together."""
    both = (
        [] if "critic" in roles_of(config) else [key for key in explicit if _of_both(explicit, key)]
    )
    given = [key for key in explicit if key not in both]
    reasons = {key: reason for key in given if (reason := _switched_off(config, key))}
    found: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        written, (_, _, leaf) = explicit[key].key, key.partition(".")
        twin = f"critic.{leaf}" if key.startswith("actor.") else f"actor.{leaf}"
        of_both = explicit.get(twin) == explicit[key] and reasons.get(twin) == reason
        named = found.setdefault(reason, [])
        shown = written if of_both or not key.startswith(("actor.", "critic.")) else key
        if shown not in named:
            named.append(shown)
    return [
        f"{', '.join(keys)} {'has' if len(keys) == 1 else 'have'} no effect: {reason}"
        for reason, keys in found.items()
    ]


def _of_both(explicit: Mapping[str, Origin], key: str) -> bool:
    """Whether a key of the critics was written for both networks at once."""
    return key.startswith("critic.") and explicit.get(f"actor{key[6:]}") == explicit[key]


_REPLACED = {
    "initial_mask": ("init_mask_from", True),
    "prefill_noise": ("prefill_from", False),
    "nstep": ("expert_q", True),
    "nstep_delay": ("expert_q", True),
    "gamma": ("expert_q", True),
    "target_noise": ("expert_q", True),
    "target_noise_clip": ("expert_q", True),
    "target_masking": ("expert_q", True),
    "target_trim": ("expert_q", True),
    "target_update_interval": ("expert_q", True),
    "tau": ("expert_q", True),
    "initial_targets": ("expert_q", True),
}
"""Keys without effect: where a place is set (True), or where it is not (False)."""


def _switched_off(config: RunConfig, key: str) -> str | None:
    """Return why a dotted key has no effect on a run, or None where it has one."""
    group, _, rest = key.partition(".")
    if key == "weight_init" and config.init_weights_from not in (None, FRESH):
        return "init_weights_from is set"
    for what, (place, given) in _REPLACED.items():
        if what in (key, rest) and (getattr(config, place) is not None) == given:
            return f"{place} is {'set' if given else 'not set'}"
    if group in ROLES:
        if group not in roles_of(config):
            return f"{config.algo} has no critics"
        return _network_key(getattr(config, group), rest)
    if group == "buffer" and rest != "dynamic" and not config.buffer.dynamic:
        return "buffer.dynamic is false"
    return _run_key(config, key)


def _network_key(network: NetworkConfig, key: str) -> str | None:
    rule = network.topology
    if key.startswith("redo_"):
        off = key != "redo_interval" and network.redo_interval is None
        return "redo_interval is null" if off else None
    if network.all_active:
        which = "dense" if network.dense else "match_parameters"
        kept = {"dense", "match_parameters", "hidden_sizes"}
        if not network.dense:
            kept |= {"sparsity", "allocation", "lambdas", "layers", "topology.n_of_m"}
        return None if key in kept else f"all connections are active ({which} is true)"
    if key == "initial_mask" and network.moves_budget and network.initial_sparsity == 0:
        return "initial_sparsity is 0: the network starts dense"
    if key == "allocation" and rule.n_of_m is not None:
        return "topology.n_of_m gives every layer its sparsity"
    group, _, leaf = key.rpartition(".")
    if group != "topology" or leaf in ("schedule", "budget", "fan_in", "n_of_m"):
        return None
    if rule.schedule == "static" and (not rule.moves_budget or leaf in SWAP_KEYS):
        return "topology.schedule is static"
    if leaf in BUDGET_KEYS and not rule.moves_budget:
        return "topology.budget is constant"
    if leaf == "budget_end" and rule.budget == "at_once":
        return "topology.budget is at_once"
    if leaf == "update_offset" and rule.moves_budget:
        return f"topology.budget is {rule.budget}: intervals are counted from budget_start"
    scores = {rule.drop, rule.grow}
    if any(":" in score for score in scores):  # what an outside score reads is not known
        return None
    if leaf == "sign_split" and rule.drop != "sign":
        return f"topology.drop is {rule.drop}, not sign"
    if leaf in IMPORTANCE_KEYS and not any("importance" in score for score in scores):
        return "neither topology.drop nor topology.grow goes by importance"
    return None


def refuse_unread(sets: Sequence[str], algos: Collection[str]) -> None:
    """Raise InputError for a key of `--set` that belongs to algorithms which no run has.

    A preset may hold such keys: those for several algorithms are shared. What an algorithm of
    somebody else's reads is not known.

    Args:
        sets: `key=value` texts.
        algos: the algorithms of all runs that are planned.
    """
    if any(map(is_outside, algos)):
        return
    for text in sets:
        key = text.partition("=")[0].strip()
        readers = _readers(key)
        if readers and not readers.keys() & set(algos):
            none = " and ".join(sorted(algos))
            raise InputError(
                f"--set {text}: {key} is a key of {', '.join(readers)}, and {none} does not use "
                f"it; leave it out, or choose --algo {next(iter(readers))}"
            )


def _readers(key: str) -> dict[str, None]:
    """Return the algorithms that a key belongs to, in order; none where it is everybody's."""
    return {name: None for name, row in ALGORITHMS.items() if key in row.keys}


_OF_TARGETS = (
    *("gamma", "nstep", "nstep_delay", "tau", "target_update_interval"),
    *("target_masking", "target_trim", "initial_targets"),
)
"""Keys of TD targets and target networks, of which an algorithm without critics has none."""


def _run_key(config: RunConfig, key: str) -> str | None:
    networks = (config.actor, config.critic)
    if key in _OF_TARGETS and "critic" not in roles_of(config):
        return f"{config.algo} has no critics"
    if key == "target_trim" and config.target_masking != "magnitude_trim":
        return f"target_masking is {config.target_masking}"
    readers = _readers(key)
    if readers and config.algo in ALGORITHMS and config.algo not in readers:
        return f"{config.algo} does not use it"
    if key == "nstep_delay" and config.nstep == 1:
        return "nstep is 1"
    if key == "target_entropy" and config.temperature == "fixed":
        return "temperature is fixed"
    if key == "exploration_noise" and config.collect == "mean":
        return "collect is mean"
    if key == "target_noise_clip" and config.target_noise == 0:
        return "target_noise is 0"
    grown_only = ("rewire", "moments", "grown_bias_correction")
    if key in grown_only and not any(each.changes_topology for each in networks):
        return "no topology changes"
    if key == "grown_bias_correction" and config.moments == "keep":
        return "moments is keep"
    whole = ("target_masking", "target_trim", "gradients", "initial_targets")
    if key in whole and all(each.all_active for each in networks):
        return "all connections are active"
    return None
