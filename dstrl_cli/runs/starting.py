"""What a run takes from other runs, found, read and named: masks, weights, policies, critics.

Each key of `config.starts` names a run's folder or a policy file. A folder stands for the networks
at the end of that run (`policy.safetensors`); as `init_weights_from`, for the weights that it began
with (`initial.safetensors`). These with the last masks are the start of a lottery ticket (Frankle &
Carbin 2019).

`initial.safetensors` holds the weights of the first mask alone. The others were drawn too, and can
be drawn again from that run's seed, so a run whose `config.yaml` lies beside the file is followed
to where its weights came from. Any other file stands for the weights that it holds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from dstrl_cli.config.identity import run_path, source_text
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.readfile import MAX_POLICY, read_bytes
from dstrl_cli.config.starts import FRESH, STARTS
from dstrl_cli.errors import InputError
from dstrl_cli.runs.checksums import check_policy
from dstrl_cli.runs.files import is_file
from dstrl_cli.runs.folder import read_config
from dstrl_cli.runs.policy import INITIAL_FILE, Tensors, read
from dstrl_cli.runs.status import FINISHED
from dstrl_cli.runs.summary import CONFIG_FILE, read_status, read_summary

FILES = {what: f"{row.usual}.safetensors" for what, row in STARTS.items()}
"""What a run may take from another one, and the file of that run's folder that it is taken from."""


MAX_FOLLOWED = 20
"""Runs that start from one another in a row; more are a mistake."""


@dataclass(frozen=True)
class Start:
    """A policy file that a run starts from.

    Attributes:
        file: where it lies.
        tensors, metadata: what it holds (`runs.policy`).
        config: the run in whose folder it lies; None where it lies in none.
    """

    file: Path
    tensors: Tensors
    metadata: dict[str, str]
    config: RunConfig | None

    @property
    def algo(self) -> str:
        """The algorithm that trained it."""
        return self.metadata.get("algo", "")

    @property
    def env(self) -> str:
        """The environment that it was trained on."""
        return self.metadata.get("env", "")

    @property
    def task(self) -> int:
        """The task of a navigation environment; 0 elsewhere."""
        text = self.metadata.get("task", "")
        return int(text) if text.isdecimal() else 0

    def shapes(self, head: str) -> list[tuple[int, ...]]:
        """Return (inputs, outputs) of each layer of a network: actor, critic1, ..."""
        found: list[tuple[int, ...]] = []
        while (name := f"{head}.mask.{len(found)}") in self.tensors:
            found.append(self.tensors[name].shape)
        return found

    def active(self, head: str, layer: int) -> int:
        """Return the active connections of a layer."""
        return int((self.tensors[f"{head}.mask.{layer}"] != 0).sum())

    @property
    def source(self) -> str:
        """How configurations name it: by its run and its checksum."""
        checksum = hashlib.sha256(read_bytes(self.file, MAX_POLICY)).hexdigest()
        if self.config is None:
            about = (self.metadata.get(key, "") for key in ("algo", "env", "step"))
            return source_text(Path("-".join(about).replace("/", "-")), self.file.name, checksum)
        path = run_path(self.config)
        given = self.file.resolve().parent.parent.parent.name  # a sweep may have added to it
        if given.startswith(f"{path.parts[1]}+"):
            path = Path(path.parts[0], given, *path.parts[2:])
        return source_text(path, self.file.name, checksum)


def key(what: str) -> str:
    """Return the key that says where something comes from."""
    return STARTS[what].key


def named(config: RunConfig, what: str) -> Path | None:
    """Return what a run names to take its `mask`, `weights`, ... from; None: nothing."""
    text = getattr(config, key(what))
    return None if text is None else Path(text.replace("{seed}", str(config.seed)))


def draws_fresh(config: RunConfig, what: str = "weights") -> bool:
    """Whether a run draws weights of its own that are not those of its seed (`FRESH`)."""
    return what == "weights" and config.init_weights_from == FRESH


def find(config: RunConfig, what: str) -> Start | None:
    """Return the file that a run takes its `mask`, `weights`, ... from; None where it takes none.

    Raises InputError where there is no such file, it cannot be read, it is not what its run wrote,
    or the run in a folder has not finished.
    """
    place = named(config, what)
    if place is None or draws_fresh(config, what):
        return None
    file = place if is_file(place) else place / FILES[what]
    if not is_file(file):
        holds = f"holds no {FILES[what]}" if place.is_dir() else "does not exist"
        raise InputError(
            f"{key(what)} = '{place}': {holds}; give the folder of one run (.../s0.95/seed0) or a "
            "policy file"
        )
    if file != place and STARTS[what].finished:
        _refuse_unfinished(what, place)
    try:
        tensors, metadata = read(file)
        check_policy(file, read_summary(file.parent) or {})
        own = read_config(file.parent) if is_file(file.parent / CONFIG_FILE) else None
    except InputError as error:
        raise InputError(f"{key(what)} = '{place}': {error}") from error
    return Start(file, tensors, metadata, own)


def _refuse_unfinished(what: str, folder: Path) -> None:
    """Raise InputError where the run in a folder has not come to its end."""
    status = read_status(folder)
    if status is not None and status != FINISHED:
        raise InputError(
            f"{key(what)} = '{folder}': this run has not finished (it is {status}); let it finish, "
            "or name one of its policy files to take what it holds by now"
        )


def first_weights(config: RunConfig) -> tuple[Tensors, RunConfig | None]:
    """Return where the weights of a run come from, which has `init_weights_from`.

    Returns the tensors of a policy file and the run that drew them, whose seed gives those of
    inactive connections too; or None for that run: then the tensors are all there is.
    """
    at: RunConfig = config
    for _ in range(MAX_FOLLOWED):
        start = find(at, "weights")
        assert start is not None
        if start.config is None or start.file.name != INITIAL_FILE:
            return start.tensors, None
        if start.config.init_weights_from is None or draws_fresh(start.config):
            return start.tensors, start.config
        at = start.config
    raise InputError(
        f"{key('weights')} = '{config.init_weights_from}': more than {MAX_FOLLOWED} runs start "
        "from one another"
    )
