"""`dstrl eval`: episodes of a stored policy, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstrl_cli.config.identity import env_identity
from dstrl_cli.registry import note_source
from dstrl_cli.report.words import counted
from dstrl_cli.runs.summary import CONFIG_FILE
from dstrl_cli.terminal import describe
from dstrl_cli.terminal.screen import screen
from dstrl_cli.terminal.streams import emit

if TYPE_CHECKING:
    from dstrl_cli.config.models import RunConfig
    from dstrl_cli.envs import EnvSpec
    from dstrl_cli.evaluation.rollout import Episodes
    from dstrl_cli.runs.policy import Policy


@dataclass(frozen=True)
class EvalRequest:
    """Which episodes of which policy are wanted; None leaves a value to the policy's run.

    Attributes:
        run: a run folder or a policy file.
        episodes: how many.
        seed: of the starts; None: the starts of the run's own evaluations.
        env, task: another environment than the one trained on.
        video: where to record the first episode.
        render: `human` shows the episodes in a window.
    """

    run: Path
    episodes: int | None = None
    seed: int | None = None
    env: str | None = None
    task: int | None = None
    video: Path | None = None
    render: str | None = None


@dataclass(frozen=True)
class Wanted:
    """The episodes that a request asks for.

    Attributes:
        file, policy: the policy file, and the policy in it.
        config: of the run that it lies in; None outside of one.
        spec: the environment.
        seed: of the starts.
        starts: the seed of each episode's start.
        max_steps: where an episode ends that the environment has not ended.
        cautions: what the user should know.
    """

    file: Path
    policy: Policy
    config: RunConfig | None
    spec: EnvSpec
    seed: int
    starts: Sequence[int]
    max_steps: int | None
    cautions: tuple[str, ...]

    @property
    def starting(self) -> str:
        """Where the episodes start, in words."""
        own = self.config is not None and self.seed == self.config.seed
        return "the starts of training's evaluations" if own else f"the starts of seed {self.seed}"

    @property
    def title(self) -> str:
        """The policy and its environment, in words."""
        spec, policy = self.spec, self.policy
        where = f"{spec.name}, task {spec.task}" if spec.task else spec.name
        return f"{policy.algo.upper()} policy of step {policy.step:,} on {where}"

    def about(self) -> dict[str, Any]:
        """Return the same for programs."""
        spec = self.spec
        return {"env": spec.name, "task": spec.task, "step": self.policy.step}


def wanted(request: EvalRequest) -> Wanted:
    """Return what a request asks for.

    Raises InputError where there is no policy, or it does not fit the environment.
    """
    from dstrl_cli import envs
    from dstrl_cli.evaluation import stored
    from dstrl_cli.evaluation.starts import start_seeds
    from dstrl_cli.runs.policy import Policy, find_policy

    file = find_policy(request.run)
    stored.check_content(file)
    policy, config = Policy.load(file), stored.run_config(file)
    env, task, kwargs = policy.env, policy.task or 0, policy.env_kwargs
    if request.env is not None and env_identity(request.env) != env_identity(policy.env):
        env, task, kwargs = request.env, 0, {}
    task = task if request.task is None else request.task
    note_source(policy.env, str(file))
    timeout = config.env.timeout if config else stored.TIMEOUT_S
    noise = policy.env_noise_features
    spec = envs.spec(
        env, task, kwargs, flatten=policy.env_flatten, noise_features=noise, timeout=timeout
    )
    stored.check_fit(policy, spec)
    cautions = [stored.other_bounds(policy, spec)]
    seed = request.seed
    if seed is None:
        seed = config.seed if config else stored.SEED
        if config is None and (request.run.is_dir() or stored.without_config(file)):
            cautions.append(
                f"{CONFIG_FILE} is missing: the starts are those of seed {seed}, not the run's"
            )
    episodes = request.episodes or (config.eval_episodes if config else stored.EPISODES)
    max_steps = config.eval_max_steps if config else stored.LONGEST_EPISODE
    said = tuple(text for text in cautions if text)
    return Wanted(file, policy, config, spec, seed, start_seeds(seed, episodes), max_steps, said)


def evaluate(request: EvalRequest, as_json: bool) -> None:
    """Run episodes of a stored policy and print their returns; record or show them where asked."""
    from dstrl_cli.evaluation import stored, video

    asked = wanted(request)
    if request.video is not None:
        video.check_video(request.video)
    if request.render is not None:
        video.check_render(request.render)
    run = stored.evaluate if request.render is None else video.show
    result = run(asked.policy, asked.spec, asked.starts, asked.max_steps)
    cautions = [*asked.cautions, cut_off(result, asked.max_steps)]
    if request.video is not None:
        if result.first is None:  # episodes that were shown
            result = stored.evaluate(asked.policy, asked.spec, asked.starts, asked.max_steps)
        cautions.append(video.record(asked.spec, asked.starts[0], result, request.video))
    warn(text for text in cautions if text)
    shown = stored.statistics(result)
    if as_json:
        about = {"run": str(request.run)} | asked.about()
        extra = {"seed": asked.seed, "video": None if request.video is None else str(request.video)}
        emit(json.dumps(about | extra | shown | {"returns": result.returns.tolist()}, indent=2))
        return
    lines = [f"{asked.title}, {counted(len(asked.starts), 'episode')} from {asked.starting}:"]
    describe.print_lines(screen(), lines)
    screen().print(describe.evaluation_table(shown))
    if request.video is not None:
        describe.print_lines(screen(), [f"video: {request.video}"])


def cut_off(result: Episodes, max_steps: int | None) -> str | None:
    """Return how many episodes were ended by `max_steps`, where any was."""
    cut = int(result.cut.sum())
    if not cut:
        return None
    return f"{counted(cut, 'episode')} had not ended after {max_steps:,} steps (eval_max_steps)"


def warn(cautions: Iterable[str]) -> None:
    """Print warnings where errors go."""
    describe.print_lines(screen(stderr=True), [f"warning: {text}" for text in cautions])
