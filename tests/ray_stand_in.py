"""A stand-in for Ray: tasks and actors are calls in this process, for tests of the driver.

What is asked of machines and seats is noted in `events`, in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from dstrl_cli.sweep.launcher import End
from dstrl_cli.sweep.on_ray.seat import Report


@dataclass(eq=False)
class Answer:
    """What a task or a method will say; an exception is raised, PENDING never comes."""

    value: Any


PENDING = object()


@dataclass
class Seat:
    """An actor on a machine: PENDING where it gets none, an exception where it cannot start."""

    cluster: StandIn
    where: Any

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Answer:
            self.cluster.events.append((name, self.where))
            if name == "node" or self.where is PENDING:
                return Answer(self.where)
            if name == "begin":
                self.number = arguments[0]
            said = [(self.number, End("done"))] if name == "receive" else []
            return Answer(Report(said, {}))

        return SimpleNamespace(remote=call)


@dataclass
class StandIn:
    """A cluster.

    Attributes:
        machines: the names of its machines.
        places: where the next seats come.
        lacks: what machines say of themselves instead of the truth.
        events: what was asked of machines and seats, with the machine.
        folders: which current folder each machine was asked for.
    """

    machines: list[str]
    places: list[Any] = field(default_factory=list)
    lacks: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[tuple[str, Any]] = field(default_factory=list)
    folders: dict[str, str | None] = field(default_factory=dict)

    def nodes(self) -> list[dict[str, Any]]:
        about = {"Alive": True, "NodeManagerAddress": "127.0.0.1", "Resources": {"CPU": 1}}
        return [{"NodeID": name, "NodeName": name, **about} for name in self.machines]

    def on_node(self, node: str, function: Any, **_: Any) -> Any:
        def call(folder: str | None, mark: str | None) -> Answer:
            self.events.append(("asked", node))
            self.folders[node] = folder
            return Answer(function(folder, mark) | self.lacks.get(node, {}))

        return SimpleNamespace(remote=call)

    def remote(self, _: type) -> Any:
        made = SimpleNamespace(remote=lambda _: Seat(self, self.places.pop(0)))
        return SimpleNamespace(options=lambda **_: made)

    def wait(self, answers: list[Answer], num_returns: int = 1, timeout: float | None = None):
        ready = [each for each in answers if each.value is not PENDING]
        return ready, [each for each in answers if each.value is PENDING]

    def get(self, answer: Answer) -> Any:
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def kill(self, seat: Seat) -> None:
        self.events.append(("killed", seat.where))
