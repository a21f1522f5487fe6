"""How `topology.fan_in` and `topology.n_of_m` are written, and what they mean as numbers.

Plain text and numbers, no tensors. `topology.limits` applies them to layers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator

if TYPE_CHECKING:
    from dstrl_cli.config.rulekeys import TopologyConfig

FAN_IN_USAGE = ("free", "constant", "at_most:K", "at_most:2x")
"""What `topology.fan_in` may be: no limit; the same number of inputs for every neuron of a layer,
give or take one; at most K inputs; at most twice as many as the layer's neurons have on average."""

_AT_MOST = re.compile(r"at_most:(?P<number>\d+(?:\.\d+)?)(?P<times>x?)", re.ASCII)
_N_OF_M = re.compile(r"(?P<n>\d+):(?P<m>\d+)", re.ASCII)


class AtMost(NamedTuple):
    """A largest number of inputs of a neuron: `number`, or that many times the layer's mean."""

    number: float
    times_mean: bool


def at_most(fan_in: str) -> AtMost | None:
    """Return the largest number of inputs that a `fan_in` allows; None for `free` and `constant`.

    Raises ValueError for anything else.
    """
    if fan_in in ("free", "constant"):
        return None
    match = _AT_MOST.fullmatch(fan_in)
    if match is not None:
        number, times = float(match["number"]), bool(match["times"])
        if number >= 1 and (times or number.is_integer()):
            return AtMost(number, times)
    raise ValueError(
        "must be free, constant, at_most:K with a whole number K from 1 on, or at_most:2x, which "
        "is twice the mean of the layer"
    )


def _known_fan_in(text: str) -> str:
    at_most(text)
    return text


class NOfM(NamedTuple):
    """`n` of every `m` consecutive inputs of a neuron are active; all of them where they agree."""

    n: int
    m: int

    @property
    def sparsity(self) -> float:
        """The share of inactive connections."""
        return 1 - self.n / self.m


def n_of_m(text: str) -> NOfM:
    """Return the numbers of `2:4`. Raises ValueError unless 1 <= N <= M."""
    match = _N_OF_M.fullmatch(text)
    if match is None or not 1 <= int(match["n"]) <= int(match["m"]):
        raise ValueError(
            f"'{text}' must be N:M, as in 2:4, with N from 1 to M (1:1 leaves a layer dense)"
        )
    return NOfM(int(match["n"]), int(match["m"]))


def by_layer(written: str | Sequence[str], layers: int) -> list[NOfM]:
    """Return N and M of each of so many layers, from the input on; a single N:M is for all."""
    texts = [written] * layers if isinstance(written, str) else written
    return [n_of_m(text) for text in texts]


def _one_or_several(value: Any) -> str | tuple[str, ...]:
    """Accept `2:4` for all layers, and `1:1,2:4,2:4` or a list for one after the other."""
    if isinstance(value, str) and "," in value:
        value = [part.strip() for part in value.split(",")]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError("must be N:M, as in 2:4, or a list of them, one for each layer")
    if not texts:
        raise ValueError("must hold at least one N:M")
    by_layer(texts, len(texts))
    return value if isinstance(value, str) else tuple(texts)


FanIn = Annotated[str, AfterValidator(_known_fan_in)]
NOfMs = Annotated[str | tuple[str, ...], BeforeValidator(_one_or_several)]


# --- what does not go together ------------------------------------------------------------------


def clash(rule: TopologyConfig) -> str | None:
    """Return which keys of a rule contradict its limits and what helps, or None."""
    if rule.ablate_below is not None and rule.fan_in != "constant":
        return (
            f"ablate_below = {rule.ablate_below:g} needs fan_in: constant, under which other "
            "neurons take the connections over; set it, or leave ablate_below out"
        )
    if rule.n_of_m is None:
        return None
    if rule.fan_in != "free":
        return (
            f"n_of_m = {shown(rule.n_of_m)} gives every neuron its number of inputs already; set "
            f"fan_in: free, not {rule.fan_in}, or leave n_of_m out"
        )
    if rule.moves_budget or rule.final_drop:
        key = f"budget: {rule.budget}" if rule.moves_budget else "final_drop: true"
        return (
            f"n_of_m = {shown(rule.n_of_m)} keeps the number of connections, which {key} changes; "
            "leave one of them out"
        )
    return None


def unmet(written: str | Sequence[str], fixed_by: str | None, initial_mask: str) -> str | None:
    """Return why a network cannot have N of M, and what helps, or None.

    Args:
        written: the value of `topology.n_of_m`.
        fixed_by: another key that fixes the sparsity of the network's layers, if there is one.
        initial_mask: the name of the network's first mask.
    """
    if fixed_by is not None:
        return (
            f"topology.n_of_m = {shown(written)} and {fixed_by} both fix the sparsity of layers; "
            f"set allocation: erdos_renyi and {fixed_by}: null, or leave n_of_m out"
        )
    if initial_mask == "bernoulli":
        return (
            "initial_mask: bernoulli draws the number of connections, which topology.n_of_m = "
            f"{shown(written)} counts exactly; set initial_mask: random"
        )
    return None


def shown(written: str | Sequence[str]) -> str:
    """Return the value of `n_of_m` as it is written."""
    return written if isinstance(written, str) else f"[{', '.join(written)}]"
