"""Which runs a user asks for, on the command line or from Python, and what is planned for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstrl_cli.config.presets import SweepPreset, load_sweep_preset
from dstrl_cli.config.resolving import flag_name
from dstrl_cli.config.shrink import check_scale
from dstrl_cli.errors import InputError
from dstrl_cli.report.comparing import Asked, asked_rounds
from dstrl_cli.sweep.again import ALLOWED, stored_run
from dstrl_cli.sweep.plan import Axes, expand, refuse_several
from dstrl_cli.sweep.states import Planned, fresh, resumed
from dstrl_cli.training import writers
from dstrl_cli.training.run import Run

if TYPE_CHECKING:
    from dstrl_cli.sweep.stages import Earlier


@dataclass(frozen=True)
class RunRequest:
    """Which runs are wanted.

    Attributes:
        axes: what a sweep varies; of a single run every axis has one value or none.
        flags: single keys that were given; None: not given.
        ours: `--ours` or `--no-ours`; None: not given.
        preset: name or file.
        sets: further keys, as `--set` takes them.
        overwrite: whether runs that are there start over.
        resume: whether a run that is there goes on.
        config: the stored `config.yaml` of the only run that is wanted.
        scale: the share of the length that runs are to have.
    """

    axes: Axes
    flags: Mapping[str, Any]
    ours: bool | None = None
    preset: str | None = None
    sets: Sequence[str] = ()
    overwrite: bool = False
    resume: bool = False
    config: Path | None = None
    scale: float | None = None

    def load_preset(self) -> SweepPreset | None:
        """Return the preset, if one is named. Raises InputError where it cannot be read."""
        return None if self.preset is None else load_sweep_preset(self.preset)

    @property
    def given(self) -> dict[str, Any]:
        """The single keys that were given."""
        return {key: value for key, value in self.flags.items() if value is not None}


@dataclass(frozen=True)
class Rounds:
    """What `--until-decided` and its options say, before a preset adds to it; None: not given."""

    pairs: str | None = None
    max_seeds: int | None = None
    seeds_per_round: int | None = None
    alpha: float | None = None

    def test(self, preset: SweepPreset | None) -> Asked | None:
        """Return what is to be decided, if anything. Raises InputError where that is no plan."""

        def pick(name: str) -> Any:
            given = getattr(self, name)
            return getattr(preset, name) if given is None and preset is not None else given

        pairs = self.pairs
        if pairs is None and preset is not None and preset.until_decided:
            pairs = ",".join(preset.until_decided)
        return asked_rounds(pairs, pick("alpha"), pick("max_seeds"), pick("seeds_per_round"))


def wanted_runs(
    request: RunRequest,
    preset: SweepPreset | None,
    earlier: Earlier | None = None,
    algos: Collection[str] = (),
) -> list[Run]:
    """Return the runs of a request; everything that can be checked before training is.

    `preset` is the request's, or one of its stages; then `earlier` are the stages before it, and
    `algos` the algorithms of all. Raises InputError.
    """
    if preset is not None and preset.stages:
        raise InputError(
            f"preset '{preset.name}' has stages ({', '.join(preset.stages)}), whose runs follow "
            "one another: train them with dstrl sweep"
        )
    if request.config is not None:
        _refuse_beside_config(request)
        runs = [stored_run(request.config, request.given)]
    else:
        runs = expand(
            request.axes,
            ours=request.ours,
            preset=preset,
            sets=request.sets,
            flags=request.given,
            scale=None if request.scale is None else check_scale(request.scale),
            earlier=earlier,
            algos=algos,
        )
    writers.check(run.config for run in runs)
    return runs


def plan_training(request: RunRequest) -> list[Planned]:
    """Plan what `train` asks for: one run, or the same with several seeds.

    Raises InputError where a preset names several, or where a folder is taken.
    """
    if request.resume and request.overwrite:
        raise InputError("--resume and --overwrite: give one of them")
    preset = request.load_preset()
    if preset is not None:
        refuse_several(request.axes, request.flags, request.sets, preset)
    runs = wanted_runs(request, preset)
    if preset is not None and len({run.config.seed for run in runs}) < len(runs):
        raise InputError(
            f"preset '{preset.name}' has variants of a run: train them with dstrl sweep, or give "
            "what one of them changes with --set"
        )
    if request.resume:
        return resumed(runs, overwrite=False, lengthen=True)
    return fresh(runs, request.overwrite)


def _refuse_beside_config(request: RunRequest) -> None:
    """Raise InputError where something is given that would change a stored run."""
    others = {
        "--algo": request.axes.algos,
        "--dst": request.axes.methods,
        "--seeds": request.axes.seeds,
        "--ours/--no-ours": request.ours is not None,
        "--preset": request.preset,
        "--set": request.sets,
    }
    named = [flag_name(key) for key in request.given if key not in ALLOWED]
    named += [flag for flag, value in others.items() if value]
    if named:
        raise InputError(
            f"{', '.join(named)}: not beside --config, which trains a stored run exactly as it "
            "was; leave it out, or leave out --config and give all flags"
        )
