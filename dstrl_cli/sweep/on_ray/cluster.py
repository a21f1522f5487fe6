"""A Ray cluster as the place of a sweep: connecting to it, or starting one, and what it has."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.starts import FRESH, PLACES
from dstrl_cli.errors import InputError
from dstrl_cli.machine import Host, cores, this_host
from dstrl_cli.report.words import counted
from dstrl_cli.runs import lock
from dstrl_cli.sweep.devices import Device, find_devices
from dstrl_cli.sweep.launcher import Launcher
from dstrl_cli.sweep.launchers import Site, Where
from dstrl_cli.sweep.on_ray import collected
from dstrl_cli.sweep.on_ray.seat import Driver
from dstrl_cli.sweep.place import Limits, Placement, place_runs
from dstrl_cli.sweep.states import Planned
from dstrl_cli.training.run import Run

if TYPE_CHECKING:
    from dstrl_cli.sweep.on_ray.nodes import Nodes

REACH_S = 5.0
"""How long an address may take to accept a connection."""

HEALTH_S = 120.0
"""How long Ray's own check of what answers there may take, whose process starts slowly on a busy
machine; by itself it gives up what says nothing after 40 s."""

FETCH_S = 600.0
"""How long machines may take to send what an earlier sweep left on them."""

STORE_BYTES = 256 << 20
"""Memory for what is passed on, of a cluster that is started for the call."""

SURVIVES = {"RAY_kill_child_processes_on_worker_exit": "0"}
"""Environment of Ray's processes: what a seat has started saves and ends by itself after it."""


@contextmanager
def opened(where: Where, runs: Sequence[Run], dry_run: bool) -> Iterator[Site]:
    """Connect to a cluster, or start one for the call, while the block runs.

    Raises InputError without the package, where nobody answers at the address, or where a machine
    does not fit.
    """
    if where.address is None:
        _token_of_its_own()
    ray = _package()
    if dry_run and where.address is None:
        yield _Planned()
        return
    _connect(ray, where.address)
    try:
        yield _planned_site() if dry_run else _site(runs, where.collect)
    finally:
        ray.shutdown()


def _planned_site() -> Site:
    """Return the cluster that this process is connected to, whose versions fit; writes nothing."""
    from dstrl_cli.sweep.on_ray.nodes import Nodes, asked

    found = Nodes(asked())
    found.check_all()
    return RayCluster(found, _driver())


def _site(runs: Sequence[Run], collect: bool) -> Site:
    """Return the cluster that this process is connected to, whose machines fit."""
    from dstrl_cli.sweep.on_ray.nodes import Nodes, asked

    out = Path(runs[0].config.out)
    if collect:
        found = Nodes(asked())
        found.check_all()
        sweep = collected.name_of(out)
        _fetch_left_behind(found, sweep, out)
        return RayCluster(found, _driver(sweep))
    relative = any(not path.is_absolute() for run in runs for path in _paths(run.config))
    found = Nodes(asked(out, str(Path.cwd()) if relative else None))
    found.check_all()
    return RayCluster(found, _driver())


def _paths(config: RunConfig) -> list[Path]:
    """Return the folder of a run's results, and what it starts from or learns from."""
    places = [getattr(config, key) for key in PLACES]
    return [Path(config.out), *(Path(each) for each in places if each not in (None, FRESH))]


def _driver(sweep: str | None = None) -> Driver:
    return Driver(str(Path.cwd()), sys.argv, sweep)


class RayCluster(Site):
    """The machines of a Ray cluster."""

    def __init__(self, nodes: Nodes, driver: Driver) -> None:
        self._nodes, self._driver = nodes, driver

    @override
    def place(self, planned: Sequence[Planned], limits: Limits, dry_run: bool) -> Placement:
        nodes = self._nodes
        nodes.look()
        name = planned[0].run.config.device
        devices = self._devices(name, limits.device_memory)
        memory, most = nodes.total("memory") or None, max(1, nodes.most("CPU"))
        host = Host(max(1, nodes.total("CPU")), memory, most)
        placement = place_runs(planned, limits, host, dry_run, devices)
        several = counted(len(nodes.ids), "Ray machine")
        threads = max((run.config.thread_count for run in placement.runs), default=1)
        if placement.on_cpu and threads > nodes.most("CPU"):
            raise InputError(
                f"threads = {threads}: no machine of the Ray cluster has more than "
                f"{counted(nodes.most('CPU'), 'CPU')}; use fewer threads"
            )
        what = "CPU" if placement.on_cpu else "GPU"
        where = f"{counted(nodes.total(what), what)} of {several}"
        return replace(placement, where=where)

    def _devices(self, name: str, memory: int | None) -> list[Device]:
        """Return the devices of a sweep; every accelerator of the cluster is one, called `cuda:0`.

        Raises InputError where there is none, or a certain one is wanted.
        """
        count = self._nodes.total("GPU")
        if name == "cpu" or (name == "auto" and not count):
            return [Device("cpu")]
        if name not in ("auto", "cuda"):
            raise InputError(
                f"device = {name!r}: accelerators of a cluster have no numbers; use --device cuda"
            )
        if not count:
            raise InputError(
                f"device = {name!r}: no machine of the Ray cluster has a GPU; use --device cpu"
            )
        return [Device("cuda:0", memory or self._nodes.free_memory())] * count

    @override
    def launcher(self) -> Launcher:
        from dstrl_cli.sweep.on_ray.launcher import RayLauncher

        return RayLauncher(self._driver, self._nodes)


class _Planned(Site):
    """The cluster that would be started on this machine, for a dry run."""

    @override
    def place(self, planned: Sequence[Planned], limits: Limits, dry_run: bool) -> Placement:
        devices = find_devices(planned[0].run.config.device, limits.device_memory, dry_run)
        found = place_runs(planned, limits, this_host(), dry_run, devices)
        on = "the CPUs" if found.on_cpu else found.device
        return replace(found, where=f"{on} of this machine, in a Ray cluster of its own")

    @override
    def launcher(self) -> Launcher:
        raise InputError("a dry run trains nothing")


# --- connecting ---------------------------------------------------------------------------------


def _package() -> Any:
    """Return the package ray. Raises InputError where it is not installed."""
    # Read when it is imported. What it says about itself to its makers, only a user may turn on.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"--launcher ray needs the package ray ({error}): pip install 'dstrl[ray]'"
        ) from None
    return ray


def _token_of_its_own() -> None:
    """Let a cluster that is started for the call admit this call alone, unless the user decides.

    Otherwise Ray would keep a token in the user's home for all that is started later.
    """
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start one on this machine. Raises InputError where that fails."""
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {
            "address": "local",
            "num_cpus": cores(),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
    else:
        _check_answers(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": SURVIVES},
            **options,
        )
    except Exception as error:
        cause = f"no connection to a Ray cluster ({' '.join(str(error).split())[:400]})"
        if address is not None:
            raise InputError(f"--address {address}: {cause}") from None
        raise InputError(
            f"--launcher ray: {cause}; on a busy machine try again, or start a cluster with "
            "`ray start --head` and add --address auto"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray's would end the process without saving


def _check_answers(address: str) -> None:
    """Raise InputError where no Ray cluster answers at an address, which Ray would wait for."""
    remedy = "start one with `ray start --head`, or leave out --address"
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    if address == "auto":
        if cause := _unhealthy(command):
            raise InputError(f"--address auto: {cause} on this machine; {remedy}")
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 1 << 16 or "/" in host:
        raise InputError(f"--address {address}: give auto, or HOST:PORT as `ray start` prints it")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S):
            pass
    except OSError as error:
        cause = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise InputError(f"--address {address}: nobody answers there ({cause}); {remedy}") from None
    if cause := _unhealthy([*command, "--address", address]):
        raise InputError(f"--address {address}: {cause} there; {remedy}")


def _unhealthy(command: Sequence[str]) -> str | None:
    """Return why Ray's own check of a cluster fails; None where it succeeds, within a time.

    Raises InputError where the cluster wants a token that this process does not have.
    """
    nothing = "no Ray cluster answers"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=HEALTH_S)
    except subprocess.TimeoutExpired:
        return nothing
    if done.returncode and "AuthenticationError" in done.stderr:
        raise InputError(
            "--address: the Ray cluster wants a token: set RAY_AUTH_MODE=token, and have the token "
            "of its head in ~/.ray/auth_token, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        )
    return nothing if done.returncode else None


def _fetch_left_behind(nodes: Nodes, sweep: str, out: Path) -> None:
    """Fetch runs that an earlier sweep left on machines' disks when it was killed.

    A run whose folder is locked here is another sweep's, which will fetch or has just sent it.
    """
    import ray

    from dstrl_cli.sweep.on_ray.nodes import on_node

    def ask(node: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return ray.get(on_node(node, function).remote(*arguments), timeout=FETCH_S)

    for node in nodes.ids:
        for label, step in ask(node, collected.left_behind, sweep).items():
            (out / label).mkdir(parents=True, exist_ok=True)
            with suppress(lock.InUse), lock.held(out / label):
                if collected.is_further(step, out / label):
                    (files,) = ask(node, collected.send, sweep, [label]).values()
                    collected.put(out / label, files)
                ask(node, collected.forget, sweep, [label])
