"""Combinations of keys that are refused when a run is planned.

`RunConfig` accepts them, so that stored runs of this kind stay readable. Every function raises
InputError, naming keys, values, where they were set, and what helps.
"""

from __future__ import annotations

from collections.abc import Mapping

from dstrl_cli.config import effects
from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.parse import Origin
from dstrl_cli.config.windows import windows
from dstrl_cli.errors import InputError
from dstrl_cli.registry import SCORES


def refuse_short_buffer(config: RunConfig, origins: Mapping[str, Origin]) -> None:
    """A target sums the rewards of n stored steps, which a buffer of fewer never holds."""
    buffer, size = config.buffer, config.buffer_size
    key, held = "buffer_size", size
    if buffer.dynamic and size > buffer.min_size:
        key, held = "buffer.min_size", buffer.smallest
    if config.nstep <= held:
        return
    nstep, limit = _origin(origins, "nstep"), _origin(origins, key)
    value = size if key == "buffer_size" else buffer.min_size
    shrinks = "" if held == value else f", from which it may shrink to {held:,}"
    raise InputError(
        f"{nstep.key} = {config.nstep}: a target sums the rewards of that many stored steps, and "
        f"the buffer would hold fewer ({limit.key} = {value:,}{shrinks}); lower nstep, or raise "
        f"{limit.key} (set by {nstep.source}; {limit.key} by {limit.source})"
    )


def refuse_widths_beside_match(config: RunConfig, origins: Mapping[str, Origin]) -> None:
    """Widths of a network that `match_parameters` finds from those of the run cannot be given."""
    for role in effects.roles_of(config):
        key = f"{role}.hidden_sizes"
        if getattr(config, role).match_parameters and key in origins:
            origin = origins[key]
            raise InputError(
                f"{origin.key} = {list(getattr(config, role).hidden_sizes or ())}: with "
                f"{role}.match_parameters the widths follow from hidden_sizes and the sparsity; "
                f"give hidden_sizes (set by {origin.source})"
            )


def refuse_absent_critics(config: RunConfig, origins: Mapping[str, Origin]) -> None:
    """A method whose critics go by TD errors says nothing for an algorithm without critics."""
    if "critic" in effects.roles_of(config):
        return
    for key in ("drop", "grow"):
        score = getattr(config.critic.topology, key)
        if score in SCORES and SCORES[score].needs_td_error:
            origin = _origin(origins, f"critic.topology.{key}")
            raise InputError(
                f"method '{config.method}': its {origin.key} = {score} is for critics, and "
                f"{config.algo} has no critics; choose a method without it, such as rigl"
            )


def refuse_standstill(config: RunConfig, origins: Mapping[str, Origin]) -> None:
    """Topology updates that replace every optimizer step leave none to learn by."""
    if config.rewire != "instead_of_step":
        return
    found: dict[Origin, list[str]] = {}
    for role in effects.roles_of(config):
        network: NetworkConfig = getattr(config, role)
        if network.changes_topology and network.topology.update_interval == 1:
            origin = _origin(origins, f"{role}.topology.update_interval")
            found.setdefault(origin, []).append(role)
    for origin, roles in found.items():
        rewire = _origin(origins, "rewire")
        raise InputError(
            f"{origin.key} = 1: the {effects.named_networks(roles)} would never learn, since each "
            f"topology update replaces an optimizer step ({rewire.key} = 'instead_of_step', set by "
            f"{rewire.source}); set {origin.key} to 2 or more, or {rewire.key} to after_step (set "
            f"by {origin.source})"
        )


def refuse_unknown_end(config: RunConfig, origins: Mapping[str, Origin]) -> None:
    """Topology schedules end with the run's updates, whose number must be known before it starts.

    A fixed number of updates after every episode depends on how many episodes there are.
    """
    changing = any(getattr(config, role).changes_topology for role in effects.roles_of(config))
    if not changing or not config.trains_after_episodes or config.gradient_steps < 0:
        return
    steps, freq = _origin(origins, "gradient_steps"), _origin(origins, "train_freq")
    after = f"{freq.key} = [{config.train_every}, episode]"
    raise InputError(
        f"{steps.key} = {config.gradient_steps}: with {after} the number of updates depends on "
        "the episodes, and the schedule of topology changes needs it; set "
        f"gradient_steps=-1 (as many updates as steps), or let {freq.key} count steps "
        f"(set by {steps.source}; {freq.key} by {freq.source})"
    )


def refuse_unreached_sparsity(config: RunConfig) -> None:
    """A budget that does not arrive within the run leaves another sparsity than the folder says.

    To be called when the length of the run is known.
    """
    for role in effects.roles_of(config):
        network: NetworkConfig = getattr(config, role)
        if not network.moves_budget:
            continue
        rule, name = network.topology, f"{role}.topology"
        found = windows(config, role)
        arrival, end = found.move[1], found.end
        window = "budget_start" if rule.budget == "at_once" else "budget_end"
        share = getattr(rule, window)
        missed = f"the {role} would not reach its final sparsity"
        if found.total < 1:
            raise InputError(
                f"{name}.budget = '{rule.budget}': {missed}, since the run has no updates of it; "
                "raise --steps, or lower learning_starts"
            )
        if arrival > end:
            raise InputError(
                f"{name}.stop_before_end = {rule.stop_before_end:,}: {missed}: its budget arrives "
                f"at update {arrival:,} ({window} = {share:g}), and the topology stays as it is "
                f"from update {end:,} on; lower stop_before_end, or {window}"
            )
        episodes = config.episodes
        if episodes is not None and share * episodes > episodes - 1 + 1e-9:
            raise InputError(
                f"{name}.{window} = {share:g}: {missed}, since the last of {episodes:,} episodes "
                f"ends with the run; set {window} to at most {(episodes - 1) / episodes:.4g}"
            )


def _origin(origins: Mapping[str, Origin], key: str) -> Origin:
    """Return where a key was set; nobody need have."""
    return origins.get(key, Origin(key, "the defaults"))
