"""Serve the console of a profile until Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import PlatformError
from deploy.cli.machine.ports import is_free, next_free
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.serving.prediction import API_KEY
from deploy.cli.terminal.output import console, write_json

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from deploy.cli.cluster.cluster_settings import Profile
    from deploy.cli.console.live import Prometheus

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LEAST_SECRET = 32  # bytes


@dataclass(frozen=True, kw_only=True)
class ConsoleOptions:
    """What ``fairlead console`` is told; empty texts mean none.

    Attributes:
        prometheus: its address; empty: that of the profile's cluster.
        keys: file of the API keys.  session_secret: file that signs sessions.
        model_keys: folder with a file for each model, with the key that its endpoint wants.
        places: MODEL=URL.  links: NAME=URL.
    """

    prometheus: str = ""
    keys: str = ""
    session_secret: str = ""
    model_keys: str = ""
    places: Sequence[str] = ()
    links: Sequence[str] = ()


def run_console(profile: str, host: str, port: int, options: ConsoleOptions, as_json: bool) -> None:
    """Serve until Ctrl-C, and say where."""
    import uvicorn

    if host not in _LOOPBACK and not options.keys:
        raise PlatformError(
            f"the console would answer everybody who reaches {host}",
            detail="only on 127.0.0.1 it needs no keys",
            fix="name the file of the API keys: --keys FILE (python -m services.server.auth NAME makes one)",
            code="no_keys",
        )
    app = build_console(profile, options)
    if not is_free(port):
        raise PlatformError(f"port {port} is in use", fix=f"take another: --port {next_free(port)}", code="port_in_use")
    threading.Thread(target=_warm, args=(app,), daemon=True).start()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{port}"
        if as_json:
            write_json({"console_url": url})
        else:
            console().print(f"The console is up: [bold]{url}[/]; Ctrl-C ends it")
        settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(settings).run([listener])


def _warm(app: Starlette) -> None:
    """Read registry and bundles once, so that the first page need not; it is ready whatever comes of it."""
    try:
        with contextlib.suppress(PlatformError):
            app.state.source.models()
    finally:
        app.state.warm.set()


def build_console(profile: str, options: ConsoleOptions) -> Starlette:
    """The application over a profile."""
    from deploy.cli.console.home_source import HomeSource
    from deploy.cli.console.releases import Machine, Releases, Served
    from deploy.cli.console.run_source import ClusterRuns, LocalRuns
    from deploy.cli.console.stages import ClusterStages, ask_keeper
    from deploy.cli.rollouts.asking import steered
    from services.console.app import build_app
    from services.server.auth import KeyRing

    links, places = pairs(options.links, "--link"), pairs(options.places, "--endpoint")
    secret = session_secret(options.session_secret)
    where, endpoints = load_profile(profile), load_endpoints(profile)
    if endpoints.tracking.startswith("http") and (where.cluster is None or endpoints.tracking != where.tracking):
        links = {"MLflow": endpoints.tracking, **links}  # a name of the cluster is none for a browser
    served: Served = Machine(profile, places)
    stages = None
    if where.cluster is not None:
        served = Releases(where.cluster, places)
        stages = ClusterStages(functools.partial(ask_keeper, where.cluster), served.of)
    source = HomeSource(
        endpoints,
        served=served,
        stages=stages,
        runs=ClusterRuns(where) if where.cluster and where.cluster.kfp else LocalRuns(endpoints, where.prices),
        steer=functools.partial(steered, profile),
        prometheus=_prometheus(where, options.prometheus),
        key=model_keys(options.model_keys),
        links=links,
    )
    return build_app(source, KeyRing(options.keys) if options.keys else None, secret)


def _prometheus(where: Profile, url: str) -> Prometheus | None:
    """The one that is named, or that of the cluster where it can be reached."""
    from deploy.cli.cluster.port_forward import reach
    from deploy.cli.console.live import Prometheus

    if url:
        return Prometheus(url)
    if where.cluster is not None and where.cluster.prometheus:
        with contextlib.suppress(PlatformError):
            return Prometheus(reach(where.cluster.prometheus, where.cluster))
    return None


def session_secret(file: str) -> bytes:
    """What signs sessions; empty where no file is named.

    Raises:
        PlatformError: ``code="bad_secret"``: it cannot be read, or is short.
    """
    if not file:
        return b""
    try:
        found = Path(file).read_bytes().strip()
    except OSError as err:
        detail, found = err.strerror or str(err), b""
    else:
        detail = f"it has {len(found)} bytes"
    if len(found) < _LEAST_SECRET:
        raise PlatformError(
            f"no secret that signs sessions: {file}",
            detail=detail,
            fix=f"put at least {_LEAST_SECRET} random bytes there: openssl rand -hex 32 > {file}",
            code="bad_secret",
        )
    return found


def model_keys(folder: str) -> Callable[[str], str]:
    """The key that the endpoint of a model wants: of its file in a folder, else the one of the environment."""
    shared = os.environ.get(API_KEY, "")

    def key(model: str) -> str:
        if not folder or not re.fullmatch(r"[\w-]+", model):
            return shared
        try:
            return (Path(folder) / model).read_text(encoding="ascii").strip() or shared
        except (OSError, UnicodeDecodeError):
            return shared

    return key


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """``NAME=URL`` options by name.

    Raises:
        PlatformError: ``code="bad_option"``.
    """
    found = {}
    for text in given:
        name, _, url = text.partition("=")
        if not name or not url.startswith(("http://", "https://")):
            raise PlatformError(
                f"{option} {text!r} is no NAME=URL", fix=f"write {option} NAME=http://HOST:PORT", code="bad_option"
            )
        found[name] = url.rstrip("/")
    return found
