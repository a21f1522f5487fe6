"""`dstrl eval --perturb`: several policies under rising perturbations, side by side."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from dstrl_cli.config.identity import noise_label
from dstrl_cli.errors import InputError
from dstrl_cli.report.cells import differing_settings
from dstrl_cli.report.documents import harmless
from dstrl_cli.report.runs import LoggedRun, load
from dstrl_cli.report.table import DENSE
from dstrl_cli.report.tables import method_labels
from dstrl_cli.report.words import counted
from dstrl_cli.runs.files import write
from dstrl_cli.runs.folder import check_writable
from dstrl_cli.terminal import describe
from dstrl_cli.terminal.evaluating import EvalRequest, Wanted, wanted, warn
from dstrl_cli.terminal.screen import screen
from dstrl_cli.terminal.streams import emit
from dstrl_cli.terminal.wording import number

if TYPE_CHECKING:
    from dstrl_cli.evaluation.perturbations import Response
    from dstrl_cli.plots.perturbed import Answer

CSV_FILE = "perturb.csv"
NO_PLOT = 'pip install "dstrl[plot]", or leave --out away (--json has all numbers)'


@dataclass(frozen=True)
class Policy:
    """A policy that is perturbed: what is asked of it, and what it gave.

    Attributes:
        asked: the episodes.
        logged: the run in whose folder it lies; None where that is no run of dstrl.
        label: of its run's method, which those of all other policies differ from.
        responses: what it gave at every strength.
    """

    asked: Wanted
    logged: LoggedRun | None
    label: str = ""
    responses: tuple[Response, ...] = ()

    @property
    def env(self) -> str:
        """The environment, with its noisy features, and its task where that is not the first."""
        spec = self.asked.spec
        name = spec.name + noise_label(spec.noise_features)
        return f"{name}.task{spec.task}" if spec.task else name

    @property
    def group(self) -> str:
        """What runs have in common that differ in their seed alone."""
        if self.logged is None:
            return str(self.asked.file)
        who = self.logged.identity
        end = "" if self.dense else f" {who.sparsity}"
        other_file = "" if self.asked.file.stem == "policy" else f" ({self.asked.file.stem})"
        return f"{who.algo.upper()} {self.label}{end}{other_file}"

    @property
    def dense(self) -> bool:
        """Whether its run was dense."""
        return self.logged is not None and self.logged.identity.sparsity == DENSE

    @property
    def untrained(self) -> float | None:
        """The mean return before training, where it is known of this environment."""
        spec, policy = self.asked.spec, self.asked.policy
        if self.logged is None or (spec.id, spec.task) != (policy.env, policy.task):
            return None
        evaluations = self.logged.evaluations
        first = evaluations["return"][evaluations["step"] == 0]
        return float(first.mean()) if len(first) else None

    def about(self) -> dict[str, Any]:
        """Return which policy it is."""
        who = None if self.logged is None else self.logged.identity
        return {
            "run": str(self.asked.file),
            "env": self.env,
            "algo": self.asked.policy.algo,
            "method": who and who.method,
            "sparsity": who and who.sparsity,
            "seed": who and who.seed,
        }


def perturb(
    requests: Sequence[EvalRequest], texts: Sequence[str], out: Path | None, as_json: bool
) -> None:
    """Run the episodes of policies at every strength that is wanted; print and write the returns.

    Raises InputError, before any episode, for a perturbation that cannot be had.
    """
    from dstrl_cli.evaluation.perturb import check_taken, responses
    from dstrl_cli.evaluation.perturbations import parse

    strengths = parse(texts)
    policies = _labelled([_policy(request) for request in requests])
    _check_apart(policies)
    for each in policies:
        check_taken(each.asked.spec, strengths)
    if out is not None:
        from dstrl_cli.plots import canvas

        canvas.check_installed("--perturb with --out", NO_PLOT)
        check_writable(out)
    done = []
    for each in policies:
        asked = each.asked
        warn(asked.cautions)
        line = f"{asked.file}: {counted(len(asked.starts), 'episode')} from {asked.starting}"
        describe.print_lines(screen(stderr=True), [line])
        made = responses(
            asked.policy, asked.spec, asked.starts, asked.seed, strengths, asked.max_steps
        )
        done.append(replace(each, responses=tuple(made)))
    answers = _answers(done)
    lost = list(_half_lost(done, answers))
    notes = list(_notes(done))
    files = [] if out is None else _write(out, done, answers)
    if as_json:
        _print_json(done, lost, notes, files)
        return
    console = screen()
    for heading, table in _tables(answers):
        describe.print_lines(console, [heading])
        console.print(table)
    describe.print_lines(console, [*_lost_lines(lost), *notes, *map(str, files)])


def _policy(request: EvalRequest) -> Policy:
    asked = wanted(request)
    logged = None
    if asked.config is not None:
        with suppress(InputError):  # a folder that was moved or renamed
            (logged,) = load(asked.file.parent).runs
    return Policy(asked, logged)


def _labelled(policies: Sequence[Policy]) -> list[Policy]:
    """Return policies with the labels of their methods, as tables tell them apart."""
    labels = method_labels(each.logged for each in policies if each.logged is not None)
    return [
        each
        if each.logged is None
        else replace(each, label=labels[each.logged.identity.method].label)
        for each in policies
    ]


def _check_apart(policies: Sequence[Policy]) -> None:
    """Raise InputError where a policy is given twice."""
    seen: set[Path] = set()
    for each in policies:
        file = each.asked.file.resolve()
        if file in seen:
            raise InputError(f"{each.asked.file} is given twice: give every run once")
        seen.add(file)


# --- runs side by side ----------------------------------------------------------------------------


def _groups(done: Sequence[Policy]) -> dict[tuple[str, str], list[Policy]]:
    """Return the runs that are averaged, by environment and what they have in common."""
    groups: dict[tuple[str, str], list[Policy]] = defaultdict(list)
    for each in done:
        groups[each.env, each.group].append(each)
    return groups


def _answers(done: Sequence[Policy]) -> list[Answer]:
    """Return the mean returns of every group of runs, environment and kind."""
    from dstrl_cli.evaluation.perturbations import KINDS
    from dstrl_cli.plots.perturbed import Answer

    answers = []
    for (env, group), runs in _groups(done).items():
        for name in dict.fromkeys(response.kind for response in runs[0].responses):
            of_kind = [[one for one in run.responses if one.kind == name] for run in runs]
            returns = np.array([[one.mean for one in run] for run in of_kind]).T  # [S, runs]
            strengths = np.array([one.strength for one in of_kind[0]])
            kind = KINDS[name]
            answers.append(
                Answer(
                    env, name, group, runs[0].dense, strengths, returns, kind.neutral, kind.meaning
                )
            )
    return answers


def _half_lost(done: Sequence[Policy], answers: Sequence[Answer]) -> Iterator[dict[str, Any]]:
    """Yield where each group loses half of what training gained, where that is known."""
    from dstrl_cli.evaluation.perturbations import half_lost

    groups = _groups(done)
    for answer in answers:
        runs = groups[answer.env, answer.group]
        untrained = [each.untrained for each in runs]
        known = [each for each in untrained if each is not None]
        if len(known) < len(untrained):
            continue
        strengths, returns = answer.strengths.tolist(), answer.center.tolist()
        untrained_mean = float(np.mean(known))
        found = half_lost(strengths, returns, answer.neutral, untrained_mean)
        gained = returns[strengths.index(answer.neutral)] - untrained_mean
        about = {"env": answer.env, "policy": answer.group, "perturbation": answer.kind}
        yield about | {"gained": gained} | found


def _notes(done: Sequence[Policy]) -> Iterator[str]:
    """Yield of which groups it is not known what training gained, and which mix different runs."""
    for (env, group), runs in _groups(done).items():
        if any(each.untrained is None for each in runs):
            yield (
                f"{env}, {group}: where half of what training gained is lost is not known, as no "
                "evaluation before training in this environment is logged"
            )
        logged = [each.logged for each in runs if each.logged is not None]
        differing = differing_settings([run.settings for run in logged]) if logged else {}
        if differing:
            keys = ", ".join(differing)
            yield f"{env}, {group}: the mean of runs that differ in more than their seed: {keys}"
        elif len({run.identity.seed for run in logged}) < len(logged):
            yield f"{env}, {group}: the mean of runs some of which have the same seed"


def _lost_lines(lost: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the same in words, a line for each kind."""
    by_kind: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in lost:
        at = [f"{each[side]:g}" for side in ("below", "above") if each[side] is not None]
        text = " and ".join(at) or "none of these strengths"
        if each["gained"] <= 0:
            text = "no strength: it gained nothing"
        by_kind[each["env"], each["perturbation"]].append(f"{each['policy']} at {text}")
    for (env, kind), texts in by_kind.items():
        yield f"{env}, {kind}: half of what training gained is lost by {'; '.join(texts)}"


# --- what is shown and written --------------------------------------------------------------------


def _tables(answers: Sequence[Answer]) -> Iterator[tuple[str, Table]]:
    """Yield heading and table per environment and kind: a row per strength, a column per group."""
    blocks: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in answers:
        blocks[answer.env, answer.kind].append(answer)
    for (env, kind), here in blocks.items():
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("strength", justify="right")
        for answer in here:
            runs = answer.returns.shape[1]
            heading = f"{answer.group} n={runs}" if runs > 1 else answer.group
            table.add_column(Text(heading), justify="right", overflow="fold")
        for row, strength in enumerate(here[0].strengths):
            cells = [_cell(answer, row) for answer in here]
            bold = strength == here[0].neutral
            table.add_row(f"{strength:g}", *cells, style="bold" if bold else None)
        yield f"{env}: mean return under {kind} ({here[0].meaning})", table


def _cell(answer: Answer, row: int) -> str:
    """Return the mean over runs, with their standard deviation where there are several."""
    of_runs = answer.returns[row]
    end = f" ± {number(of_runs.std())}" if len(of_runs) > 1 else ""
    return f"{number(of_runs.mean())}{end}"


def _write(out: Path, done: Sequence[Policy], answers: Sequence[Answer]) -> list[Path]:
    """Write the rows and the figures to a folder; return their files."""
    from dstrl_cli.plots import canvas
    from dstrl_cli.plots.perturbed import against_strength
    from dstrl_cli.plots.plotting import file_name

    out.mkdir(parents=True, exist_ok=True)
    files = [out / CSV_FILE]
    write(files[0], _csv(done).encode())
    with canvas.settings():
        for drawing in against_strength(answers):
            for suffix in canvas.FORMATS:
                files.append(out / f"{file_name(drawing.name)}.{suffix}")
                canvas.save(drawing.figure, files[-1])
    return files


def _csv(done: Sequence[Policy]) -> str:
    """Return one row per episode."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = ("perturbation", "strength", "episode", "return", "length")
    writer.writerow([*done[0].about(), *ends])
    for each in done:
        about = [harmless(value) for value in each.about().values()]
        for found in each.responses:
            for episode, pair in enumerate(zip(found.returns, found.lengths, strict=True)):
                where = (found.kind, found.strength, episode)
                writer.writerow([*about, *where, *(value.item() for value in pair)])
    return text.getvalue()


def _print_json(
    done: Sequence[Policy], lost: Sequence[Any], notes: Sequence[str], files: Sequence[Path]
) -> None:
    from dstrl_cli.evaluation.perturbations import KINDS, row

    kinds = dict.fromkeys(found.kind for each in done for found in each.responses)
    document = {
        "perturbations": {
            name: {"meaning": KINDS[name].meaning, "unperturbed": KINDS[name].neutral}
            for name in kinds
        },
        "rows": [each.about() | row(found) for each in done for found in each.responses],
        "half_lost": lost,
        "notes": notes,
        "files": list(map(str, files)),
    }
    emit(json.dumps(document, indent=2))
