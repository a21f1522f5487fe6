"""What the rows that follow depend on: the state of a recorder, taken and given back by member."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from dstrl_cli.training.neurons import Saturation

if TYPE_CHECKING:
    from dstrl_cli.training.recorder import Recorder


class Times(NamedTuple):
    """Seconds that a run took, all in all and for parts of it."""

    wall: float = 0.0
    evaluation: float = 0.0
    checkpoint: float = 0.0


def recorder_state(recorder: Recorder, member: int) -> dict[str, Any]:
    """Return what a member's next rows depend on; everything that waits must be written."""
    distance, best = recorder.distances.get(member), recorder.best[member]
    networks = {
        network.plan.role: {
            **recorder.active[network][member].state(),
            "inactive_gradients": recorder.inactive_gradients[network][member],
        }
        for network in (recorder.algorithm.actor, recorder.algorithm.critic)
    }
    return {
        "episode_return": float(recorder.episode_return[member]),
        "episode_length": int(recorder.episode_length[member]),
        "episode_count": int(recorder.episode_count[member]),
        "recent_returns": recorder.recent_returns[member],
        "distance": None if distance is None else float(distance),
        "last_evaluation": json.dumps(recorder.last_evaluation.get(member)),
        "last_success": recorder.last_success.get(member),
        "notes": list(recorder.notes[member]),
        "cut_evaluations": int(recorder.cut_evaluations[member]),
        "saturated": list(recorder.neurons.saturated[member]),
        "best": None if best == -math.inf else best,
        "networks": networks,
        "restarts": recorder.restarts[member],
        "times": list(recorder.times(member)),
        "row_step": recorder.row_step,
        "row_seconds": time.perf_counter() - recorder.row_time,
    }


def set_recorder_state(recorder: Recorder, states: Sequence[Mapping[str, Any]]) -> None:
    """Take the states of all members; the rows that follow are those that would have been."""
    now = time.perf_counter()
    recorder.started, recorder.row_time = now, now - states[0]["row_seconds"]
    recorder.row_step = states[0]["row_step"]
    for member, state in enumerate(states):
        recorder.episode_return[member] = state["episode_return"]
        recorder.episode_length[member] = state["episode_length"]
        recorder.episode_count[member] = state["episode_count"]
        recorder.recent_returns[member] = list(state["recent_returns"])
        if state["distance"] is not None:
            recorder.distances[member] = torch.tensor(state["distance"])
        if (evaluation := json.loads(state["last_evaluation"])) is not None:
            recorder.last_evaluation[member] = evaluation
        recorder.last_success[member] = state["last_success"]
        recorder.notes[member] = list(state["notes"])
        recorder.cut_evaluations[member] = state["cut_evaluations"]
        recorder.neurons.saturated[member] = Saturation(*state.get("saturated", ()))
        recorder.best[member] = -math.inf if state["best"] is None else state["best"]
        for network in (recorder.algorithm.actor, recorder.algorithm.critic):
            counts = state["networks"][network.plan.role]
            recorder.inactive_gradients[network][member] = counts["inactive_gradients"]
            recorder.active[network][member].set_state(counts)
        recorder.restarts[member] = state["restarts"]
        recorder.before[member] = Times(*state["times"])
