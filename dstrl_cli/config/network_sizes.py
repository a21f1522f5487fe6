"""The layer sizes of both networks of a run, once observations and actions are known."""

from __future__ import annotations

from dstrl_cli.config.limits import by_layer, shown
from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.sizes import joint_sparsity, lambda_sparsity, layer_weights, matched_widths
from dstrl_cli.errors import InputError
from dstrl_cli.registry import algorithm


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
    if network.layers is not None and not network.dense:
        sparsity = joint_sparsity(full, network.layers)
    if network.topology.n_of_m is not None and not network.dense:
        kept = by_layer(network.topology.n_of_m, len(full) - 1)
        sparsity = joint_sparsity(full, [each.sparsity for each in kept])
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
        "actor": (observation_size, action_size * algorithm(config.algo).actor_outputs),
        "critic": (both, 1),
    }
    resolved = {}
    for name, (inputs, outputs) in shapes.items():
        network = getattr(config, name)
        _refuse_other_layers(name, network, network.hidden_sizes or config.hidden_sizes)
        try:
            resolved[name] = _resolve_network(network, config.hidden_sizes, inputs, outputs)
        except InputError as error:
            raise InputError(f"{name}.sparsity = {network.sparsity:g}: {error}") from None
    return config.model_copy(update=resolved)


def _refuse_other_layers(name: str, network: NetworkConfig, hidden_sizes: tuple[int, ...]) -> None:
    """Raise InputError where a key of the layers has a value too many or too few."""
    count = len(hidden_sizes) + 1
    if network.dense:
        return
    if network.layers is not None and len(network.layers) != count:
        given = ", ".join(f"{each:g}" for each in network.layers)
        raise InputError(
            f"{name}.layers = [{given}]: gives {len(network.layers)} sparsities, and the network "
            f"has {count} layers; give one for each layer, from the input on"
        )
    kept = network.topology.n_of_m
    if isinstance(kept, tuple) and len(kept) != count:
        raise InputError(
            f"{name}.topology.n_of_m = {shown(kept)}: gives {len(kept)} layers, and the "
            f"network has {count}; give one N:M for each layer, from the input on, or one for all"
        )


def network_sizes(
    config: RunConfig, observation_size: int, action_size: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return all layer sizes of the actor and of one critic, from the input to the output."""
    full = resolve_sizes(config, observation_size, action_size)
    actor = (observation_size, *(full.actor.hidden_sizes or ()))
    critic = (observation_size + action_size, *(full.critic.hidden_sizes or ()), 1)
    return (*actor, action_size * algorithm(config.algo).actor_outputs), critic


def compared_sizes(config: RunConfig, role: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the layer sizes of the dense network that a run's `role` is compared with.

    They are its own `sizes`, unless the network was narrowed to match parameters: then the run's
    widths.
    """
    network: NetworkConfig = getattr(config, role)
    return (sizes[0], *config.hidden_sizes, sizes[-1]) if network.match_parameters else sizes
