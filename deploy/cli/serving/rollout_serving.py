"""``fairlead serve MODEL --rollouts``: a router at the port, a process for each version, and a look each second."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.ports import free_port
from deploy.cli.machine.ports import HOST
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.serving.endpoint import Endpoint, tail
from deploy.cli.serving.serve import describe, open_endpoint, show_endpoint, waiting, warnings
from deploy.cli.terminal.output import console, write_json

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints
    from deploy.cli.serving.fleet import LocalFleet
    from services.rollout.envoy import Address
    from services.rollout.keeper import Keeper
    from services.rollout.labels import LabelWatch
    from services.rollout.observation import Labelled
    from services.rollout.store import Served, Store

_LOOK = 1.0  # seconds between looks
_ROUTER_PATIENCE = 30.0


def serve_with_rollouts(profile: str, ref: str, port: int | None, host: str, as_json: bool, log: bool) -> None:
    """Serve a model whose next versions take over by rollouts, until Ctrl-C."""
    with _opened(profile, ref, port, host, log) as (keeper, fleet, front):
        try:
            _wait_ready(fleet, front)
            metrics = f"http://{HOST}:{_serve_metrics(keeper)}/metrics"
            _tell(front, metrics, profile, as_json)
            _look_after(keeper, threading.Event())
        except KeyboardInterrupt:
            if not as_json:
                console().print("\nStopped. A rollout that is under way goes on when it is served again.")


@contextlib.contextmanager
def rollouts_served(profile: str, ref: str, port: int | None, host: str = HOST, log: bool = True) -> Iterator[Endpoint]:
    """The endpoint of a model whose next versions take over by rollouts, which a thread looks after meanwhile."""
    with _opened(profile, ref, port, host, log) as (keeper, fleet, front):
        _wait_ready(fleet, front)
        ended = threading.Event()
        thread = threading.Thread(target=_look_after, args=(keeper, ended), name="fairlead-rollouts", daemon=True)
        thread.start()
        try:
            yield front
        finally:
            ended.set()
            thread.join()


@contextlib.contextmanager
def _opened(
    profile: str, ref: str, port: int | None, host: str, log: bool
) -> Iterator[tuple[Keeper, LocalFleet, Endpoint]]:
    """What looks after a model, its processes, and its endpoint, which is starting; all end with the block."""
    from contracts.registry import parse_ref
    from deploy.cli.serving.router import envoy_program
    from services.rollout.store import Store

    envoy_program()
    endpoints, name = load_endpoints(profile), parse_ref(ref)[0]
    store = Store(endpoints.scratch("rollouts"))
    with _alone(store, name):
        first = open_endpoint(endpoints, profile, ref, port, host, log)
        keeper, fleet, front = _keeper(store, endpoints, profile, first, ref, log)
        try:
            yield keeper, fleet, front
        finally:
            fleet.stop()
            store.write(keeper.served.model_copy(update={"looked": 0.0}))  # nobody looks after it from now on


def _look_after(keeper: Keeper, ended: threading.Event) -> None:
    said = ""
    while not ended.wait(_LOOK):
        said = _tick(keeper, said)


def _tick(keeper: Keeper, said: str) -> str:
    """Look once; a registry or disk that is away for a while ends no service, and is asked again at the next look.

    Returns what is wrong, which is not said again; "" when nothing is.
    """
    try:
        keeper.tick(time.time())
    except (PlatformError, OSError) as err:
        if str(err) != said:
            console(stderr=True).print(f"Warning  {err}", style="yellow", soft_wrap=True, markup=False)
        return str(err)
    return ""


@contextlib.contextmanager
def _alone(store: Store, name: str) -> Iterator[None]:
    """Hold the model for this process; the hold ends with it, however it ends."""
    store.folder.mkdir(parents=True, exist_ok=True)
    with (store.folder / f"{name}.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            served = store.read(name)
            raise PlatformError(
                f"{name} is served with rollouts already",
                detail=f"by process {served.pid}, at {served.url}" if served else "by a process that is starting",
                fix=f"end it, or bring it a version: fairlead deploy {name}:VERSION --strategy canary --env local",
                code="served_already",
            ) from None
        yield


def _keeper(
    store: Store, endpoints: Endpoints, profile: str, first: Endpoint, ref: str, log: bool
) -> tuple[Keeper, LocalFleet, Endpoint]:
    """What looks after the model, its processes, and its endpoint as clients see it; the champion is being started."""
    from contracts.audit import AuditLog
    from deploy.cli.serving.fleet import LocalFleet
    from services.rollout.keeper import Keeper
    from services.rollout.recording import recorder
    from services.server.addresses import url

    folder, grpc = store.folder / first.name, first.grpc

    def make(version: str, at: int, grpc_at: int) -> Endpoint:
        own = {"grpc_host": HOST, "grpc_port": grpc_at} if grpc_at else {}
        return open_endpoint(endpoints, profile, f"{first.name}:{version}", at, HOST, log, own)

    listen = _addresses(folder, first.host, first.port)
    ask = _addresses(folder, *grpc)[0] if grpc else None
    promote, counts = _promoter(endpoints, first.name), _LabelCounts()
    withdraw = _withdrawer(endpoints, first.name)
    fleet = LocalFleet(folder, listen, make, promote, time.monotonic, counts, withdraw, ask)
    served = _served(store, first, ref, bool(fleet.running))
    served = served.model_copy(update={"pid": os.getpid(), "looked": time.time(), "url": url(first.host, first.port)})
    keeper = Keeper(store, fleet, recorder(AuditLog.of(endpoints)), served)
    keeper.tick(time.time())
    if log:
        counts.begin(endpoints, first, keeper)
    version = keeper.served.version
    if version not in fleet.running:
        fleet.stop()
        raise PlatformError(f"could not serve {first.name}:{version}", detail=fleet.why_not(version), code="not_served")
    front = copy.copy(fleet.endpoint(version))
    front.host, front.port, front.url = first.host, first.port, served.url
    return keeper, fleet, front


class _LabelCounts:
    """What `LabelWatch` counts, once there is one."""

    def __init__(self) -> None:
        self._watch: LabelWatch | None = None

    def begin(self, endpoints: Endpoints, first: Endpoint, keeper: Keeper) -> None:
        from services.rollout.labels import LabelWatch

        about = first.bundle.document
        folder, signature = endpoints.uri("predictions"), about.signature
        self._watch = LabelWatch(folder, first.name, signature, lambda: keeper.served.rollout, about.metrics)

    def __call__(self) -> Mapping[str, Labelled]:
        return self._watch.counts if self._watch else {}


def _served(store: Store, first: Endpoint, ref: str, running: bool) -> Served:
    """What is served: as before where a rollout is under way or processes still run, else as asked.

    A version that a rollout refused is not served for a plain name, even where the registry has it for the champion.
    One that a rollout replaced may be asked for again; that rollout is over then, or it would replace it once more.
    """
    from services.rollout.store import Served

    before = store.read(first.name)
    if before is None:
        return Served(model=first.name, version=first.version)
    last = before.rollout
    refused = last is not None and last.phase in ("rolled_back", "aborted") and last.candidate == first.version
    if running or (last is not None and not last.ended) or (refused and ref == first.name):
        return before
    update: dict[str, Any] = {"version": first.version}
    if last is not None and last.phase == "promoted" and last.champion == first.version:
        if before.version == last.champion and ref == first.name:  # it ended before its last step was done
            return before
        update["rollout"] = None
    return before.model_copy(update=update)


def _addresses(folder: Path, host: str, port: int) -> tuple[Address, ...]:
    """Where the router listens; checked to be free, unless it is the router of an earlier command."""
    from services.rollout.envoy import Address
    from services.server.addresses import addresses, listen

    if not (folder / "processes.json").exists():
        for bound in listen(host, port):
            bound.close()
    return tuple(Address(one, port) for one in addresses(host))


def _promoter(endpoints: Endpoints, name: str) -> Callable[[str, str], None]:
    def promote(version: str, reason: str) -> None:
        from contracts.registry import Registry

        registry = Registry(endpoints)
        registry.promote(f"{name}:{version}", override=registry.resolve(f"{name}:{version}").override)

    return promote


def _withdrawer(endpoints: Endpoints, name: str) -> Callable[[str, str], None]:
    """A run makes what passes its gate the champion at once; what a rollout refuses is it no longer."""

    def withdraw(version: str, champion: str) -> None:
        from contracts.registry import CHAMPION, Registry

        registry = Registry(endpoints)
        if registry.resolve(f"{name}@{CHAMPION}").version == version:
            registry.promote(f"{name}:{champion}", override=registry.resolve(f"{name}:{champion}").override)

    return withdraw


def _wait_ready(fleet: LocalFleet, front: Endpoint) -> None:
    """Return when the champion takes traffic through the router.

    Raises:
        PlatformError: it does not, see `Endpoint.wait_ready`; or ``router_not_ready``.
    """
    endpoint = fleet.endpoint(front.version)
    with waiting(console(stderr=True), f"{endpoint.name}:{endpoint.version}") as tell:
        if endpoint.pid is not None:  # else it was taken over
            endpoint.wait_ready(tell)
        until = time.monotonic() + _ROUTER_PATIENCE
        while front.not_ready() is not None:
            if time.monotonic() > until:
                log = fleet.router.folder / "envoy.log"
                raise PlatformError(
                    f"the router before {front.name} is not ready",
                    detail=tail(log),
                    fix=f"see its log: {log}",
                    code="router_not_ready",
                )
            tell("the router is starting")
            time.sleep(0.05)


def _serve_metrics(keeper: Keeper) -> int:
    """Serve the metrics of the rollouts from a thread; returns the port."""
    import uvicorn
    from starlette.applications import Starlette

    from services.rollout.app import metrics_route

    port = free_port()
    app = Starlette(routes=[metrics_route(lambda: [keeper.served])])
    server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_level="critical", lifespan="off"))
    threading.Thread(target=server.run, daemon=True).start()
    return port


def _tell(front: Endpoint, metrics: str, profile: str, as_json: bool) -> None:
    for line in warnings(front):
        console(stderr=True).print(f"Warning  {line}", style="yellow", soft_wrap=True, markup=False)
    document: dict[str, Any] = {**describe(front), "pid": os.getpid(), "metrics_url": metrics}
    if as_json:
        write_json(document)
        return
    out = console()
    show_endpoint(out, front, document["example"])
    out.print(f"Rollouts {metrics}")
    out.print(f"Next     fairlead deploy {front.name}:VERSION --env {profile} --strategy canary", markup=False)
    out.print("Ctrl-C ends it.")
