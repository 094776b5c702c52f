"""Serve the console of a profile until Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from contracts.errors import PlatformError
from deploy.cli.machine.ports import is_free, next_free
from deploy.cli.profiles.loading import load_deployment, load_endpoints
from deploy.cli.serving.prediction import API_KEY
from deploy.cli.terminal.output import console, write_json

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from services.console.documents import Source

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def run_console(
    profile: str,
    host: str,
    port: int,
    prometheus: str,
    keys: str,
    places: Sequence[str],
    links: Sequence[str],
    as_json: bool,
) -> None:
    """Serve until Ctrl-C, and say where."""
    import uvicorn

    if host not in _LOOPBACK and not keys:
        raise PlatformError(
            f"the console would answer everybody who reaches {host}",
            detail="only on 127.0.0.1 it needs no keys",
            fix="name the file of the API keys: --keys FILE (python -m services.server.auth NAME makes one)",
            code="no_keys",
        )
    app = build_console(profile, prometheus, keys, places, links)
    if not is_free(port):
        raise PlatformError(f"port {port} is in use", fix=f"take another: --port {next_free(port)}", code="port_in_use")
    threading.Thread(target=_warm, args=(app.state.source,), daemon=True).start()
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


def _warm(source: Source) -> None:
    """Read registry and bundles once, so that the first page need not."""
    with contextlib.suppress(PlatformError):
        source.models()


def build_console(profile: str, prometheus: str, keys: str, places: Sequence[str], links: Sequence[str]) -> Starlette:
    """The application over a profile."""
    from deploy.cli.console.home_source import HomeSource
    from deploy.cli.console.live import Prometheus
    from deploy.cli.rollouts.asking import steered
    from services.console.app import build_app
    from services.server.auth import KeyRing

    endpoints = load_endpoints(profile)
    given = pairs(links, "--link")
    if endpoints.tracking.startswith("http"):
        given = {"MLflow": endpoints.tracking, **given}
    source = HomeSource(
        endpoints,
        steer=functools.partial(steered, profile),
        address=address_book(profile, pairs(places, "--endpoint")),
        prometheus=Prometheus(prometheus) if prometheus else None,
        key=os.environ.get(API_KEY, ""),
        links=given,
    )
    return build_app(source, KeyRing(keys) if keys else None)


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


def address_book(profile: str, places: dict[str, str]) -> Callable[[str], str]:
    """Where the endpoint of a model answers: as it was told, or where `fairlead serve` puts it."""
    known = dict(places)

    def address(model: str) -> str:
        if model not in known:
            known[model] = f"http://127.0.0.1:{load_deployment(profile, model).port}"
        return known[model]

    return address
