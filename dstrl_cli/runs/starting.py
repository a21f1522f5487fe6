"""What a run starts from: the masks and the weights of another run, found, read and named.

`init_mask_from` and `init_weights_from` name a run's folder or a policy file. A folder stands for
the masks at the end of that run (`policy.safetensors`), and for the weights that it began with
(`initial.safetensors`): together the start of a lottery ticket (Frankle & Carbin 2019).

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
from dstrl_cli.errors import InputError
from dstrl_cli.runs.checksums import check_policy
from dstrl_cli.runs.files import is_file
from dstrl_cli.runs.folder import read_config
from dstrl_cli.runs.policy import INITIAL_FILE, POLICY_FILE, Tensors, read
from dstrl_cli.runs.summary import CONFIG_FILE, read_summary

FILES = {"mask": POLICY_FILE, "weights": INITIAL_FILE}
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
    """Return the key that says where masks or weights come from."""
    return f"init_{what}_from"


def named(config: RunConfig, what: str) -> Path | None:
    """Return what a run names to take its `mask` or `weights` from; None: nothing."""
    text = getattr(config, key(what))
    return None if text is None else Path(text.replace("{seed}", str(config.seed)))


def find(config: RunConfig, what: str) -> Start | None:
    """Return the file that a run takes its `mask` or `weights` from; None where it takes none.

    Raises InputError where there is no such file, it cannot be read, or it is not what its run
    wrote.
    """
    place = named(config, what)
    if place is None:
        return None
    file = place if is_file(place) else place / FILES[what]
    if not is_file(file):
        holds = f"holds no {FILES[what]}" if place.is_dir() else "does not exist"
        raise InputError(
            f"{key(what)} = '{place}': {holds}; give the folder of one run (.../s0.95/seed0) or a "
            "policy file"
        )
    try:
        tensors, metadata = read(file)
        check_policy(file, read_summary(file.parent) or {})
        own = read_config(file.parent) if is_file(file.parent / CONFIG_FILE) else None
    except InputError as error:
        raise InputError(f"{key(what)} = '{place}': {error}") from error
    return Start(file, tensors, metadata, own)


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
        if start.config.init_weights_from is None:
            return start.tensors, start.config
        at = start.config
    raise InputError(
        f"{key('weights')} = '{config.init_weights_from}': more than {MAX_FOLLOWED} runs start "
        "from one another"
    )
