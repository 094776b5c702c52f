"""``fairlead serve``: one model over HTTP until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.machine.ports import HOST
from deploy.cli.profiles.loading import load_deployment, load_endpoints
from deploy.cli.serving.endpoint import Endpoint, flat, tail
from deploy.cli.terminal.output import console, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints

ENCRYPTED = {"encrypted.enabled": True}


def check_alone(rollouts: bool, encrypted: bool) -> None:
    """Refuse what does not go together.

    Raises:
        PlatformError: ``code="bad_input"``.
    """
    if rollouts and encrypted:
        raise PlatformError(
            "encrypted rows and rollouts are not served together",
            detail="rows are prepared for one version",
            fix="leave --rollouts or --encrypted out",
            code="bad_input",
        )


def serve_model(
    profile: str,
    ref: str,
    port: int | None,
    host: str,
    as_json: bool,
    log: bool = True,
    own: Mapping[str, Any] | None = None,
) -> None:
    """Resolve the reference once, start the service, say where it is, and wait; without `log` it keeps nothing."""
    with open_endpoint(load_endpoints(profile), profile, ref, port, host, log, own) as endpoint:
        try:
            endpoint.start()
            for line in warnings(endpoint):
                console(stderr=True).print(f"Warning  {line}", style="yellow", soft_wrap=True, markup=False)
            with waiting(console(stderr=True), f"{endpoint.name}:{endpoint.version}") as tell:
                endpoint.wait_ready(tell)
            if as_json:
                write_json(describe(endpoint))
            else:
                show_endpoint(console(), endpoint, endpoint.example())
                console().print("Ctrl-C ends it.")
            code = endpoint.wait()
        except KeyboardInterrupt:
            endpoint.stop()
            if not as_json:
                console().print("\nStopped.")
            return
    raise PlatformError(
        f"the endpoint ended by itself with exit code {code}", detail=tail(endpoint.log), fix=f"see {endpoint.log}"
    )


def open_endpoint(
    endpoints: Endpoints,
    profile: str,
    ref: str,
    port: int | None,
    host: str = HOST,
    log: bool = True,
    own: Mapping[str, Any] | None = None,
) -> Endpoint:
    """The endpoint of a model, not started yet, with the values of its file below the profile.

    A plain name takes the reference from the file (by default its champion); settings in `own` win over the file's.
    """
    from contracts.registry import Registry, parse_ref

    name = parse_ref(ref)[0]
    values = load_deployment(profile, name)
    registry = Registry(endpoints)
    version = registry.resolve(values.model if ref == name else ref)
    bundle = registry.fetch(f"{version.name}:{version.version}")
    if values.modality and values.modality != bundle.document.modality:
        raise PlatformError(
            f"{version.name}:{version.version} is a {bundle.document.modality} model",
            detail=f"the values of {name} say modality: {values.modality}",
            fix=f"correct models/{name}.yaml of profile {profile}",
            code="wrong_modality",
        )
    config = values.config if log else {**flat(values.config), "predictions.folder": ""}
    return Endpoint(endpoints, version, bundle, port or values.port, {**config, **(own or {})}, host)


@contextlib.contextmanager
def waiting(out: Console, what: str) -> Iterator[Callable[[str], None]]:
    """A spinner with the reason why `what` is not ready; nothing where there is no terminal."""
    if not out.is_terminal:
        yield lambda reason: None
        return
    with out.status(f"{what}: starting") as status:
        yield lambda reason: status.update(f"{what}: {reason}")


def describe(endpoint: Endpoint) -> dict[str, Any]:
    """Where an endpoint is, for ``--json``."""
    return {
        "model": endpoint.name,
        "version": endpoint.version,
        "digest": endpoint.bundle.digest,
        "url": endpoint.url,
        "predict_url": f"{endpoint.url}/predict",
        "docs_url": f"{endpoint.url}/docs",
        "metrics_url": f"{endpoint.url}/metrics",
        "log": str(endpoint.log),
        "predictions": endpoint.predictions,
        "host": endpoint.host,
        "pid": endpoint.pid,
        "example": endpoint.example(),
        "invented_keys": list(endpoint.invented),
    }


def warnings(endpoint: Endpoint) -> list[str]:
    """What should be known before others can reach an endpoint."""
    from services.server.addresses import is_loopback

    if is_loopback(endpoint.host):
        return []
    reached = f"whoever reaches this machine can ask it, unencrypted (it listens on {endpoint.host})"
    if endpoint.has_keys:
        return [reached]
    again = f"FAIRLEAD_SERVICE_KEYS_FILE=keys fairlead serve {endpoint.name}:{endpoint.version} --host {endpoint.host}"
    return [f"{reached}, and without an API key. Fix: python -m services.server.auth me >> keys; {again}"]


def show_endpoint(out: Console, endpoint: Endpoint, example: dict[str, Any]) -> None:
    """Address, a curl line that works, documentation and metrics."""
    out.print(f"Serving  [bold]{endpoint.name}:{endpoint.version}[/] on [bold]{endpoint.url}[/]")
    out.print(f"Try      {curl_line(endpoint, example)}", soft_wrap=True, markup=False)
    if endpoint.invented:
        names, task = ", ".join(endpoint.invented), endpoint.bundle.document.task
        out.print(
            f"         The online store has no {names}: the line's is made up, and features are defaults. "
            f"Fix: fairlead features materialise {task}",
            soft_wrap=True,
            markup=False,
        )
    if endpoint.bundle.document.modality == "chat":
        out.print(f"OpenAI   {endpoint.url}/v1, model {endpoint.name}")
        out.print(
            f"Chat     in a browser {endpoint.url}/chat; in a terminal: fairlead chat {endpoint.url}", soft_wrap=True
        )
    out.print(f"Docs     {endpoint.url}/docs")
    out.print(f"Metrics  {endpoint.url}/metrics")
    out.print(f"Log      {endpoint.log}", soft_wrap=True)
    kept = (
        f"{endpoint.predictions}/{endpoint.name}; labels to {endpoint.url}/feedback" if endpoint.predictions else "no"
    )
    out.print(f"Kept     {kept}", soft_wrap=True, markup=False)


def curl_line(endpoint: Endpoint, example: dict[str, Any]) -> str:
    """A shell line that asks for one prediction."""
    body = json.dumps(example, ensure_ascii=False).replace("'", "'\\''")
    url = f"'{endpoint.url}/predict'" if "[" in endpoint.url else f"{endpoint.url}/predict"  # a shell's sign
    key = ' -H "authorization: Bearer $FAIRLEAD_API_KEY"' if endpoint.has_keys else ""
    return f"curl -s {url} -H 'content-type: application/json'{key} -d '{body}'"
