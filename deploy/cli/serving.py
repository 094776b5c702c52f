"""``fairlead serve``: one model over HTTP until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.endpoint import Endpoint, tail
from deploy.cli.output import console, write_json
from deploy.cli.profiles import load_deployment, load_endpoints

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints


def serve_model(profile: str, ref: str, port: int | None, as_json: bool) -> None:
    """Resolve the reference once, start the service, say where it is, and wait."""
    with open_endpoint(load_endpoints(profile), profile, ref, port) as endpoint:
        try:
            endpoint.start()
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


def open_endpoint(endpoints: Endpoints, profile: str, ref: str, port: int | None) -> Endpoint:
    """The endpoint of a model, not started yet, with the values of its file below the profile.

    A plain name takes the reference from the file (by default its champion).
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
    return Endpoint(endpoints, version, bundle, port or values.port, values.config)


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
        "pid": endpoint.pid,
        "example": endpoint.example(),
    }


def show_endpoint(out: Console, endpoint: Endpoint, example: dict[str, Any]) -> None:
    """Address, a curl line that works, documentation and metrics."""
    out.print(f"Serving  [bold]{endpoint.name}:{endpoint.version}[/] on [bold]{endpoint.url}[/]")
    out.print(f"Try      {curl_line(endpoint, example)}", soft_wrap=True, markup=False)
    out.print(f"Docs     {endpoint.url}/docs")
    out.print(f"Metrics  {endpoint.url}/metrics")
    out.print(f"Log      {endpoint.log}", soft_wrap=True)


def curl_line(endpoint: Endpoint, example: dict[str, Any]) -> str:
    """A shell line that asks for one prediction."""
    body = json.dumps(example, ensure_ascii=False).replace("'", "'\\''")
    return f"curl -s {endpoint.url}/predict -H 'content-type: application/json' -d '{body}'"
