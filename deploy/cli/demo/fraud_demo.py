"""``fairlead demo``: simulated payments become a fraud model that answers over HTTP."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.ports import free_port
from deploy.cli.demo.demo_report import show_demo, summarise
from deploy.cli.demo.demo_requests import held_out_requests
from deploy.cli.machine.ports import is_free
from deploy.cli.profiles.loading import load_deployment, load_endpoints
from deploy.cli.runs.workflow import RunOptions, plan_run
from deploy.cli.serving.endpoint import Endpoint, Served
from deploy.cli.serving.http_requests import Answer, send
from deploy.cli.serving.serve import describe, open_endpoint, waiting
from deploy.cli.terminal.output import console, write_json
from deploy.cli.training.start_run import run_with_progress, show_gate

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints

TASK = "fraud"
CONNECTIONS = 4
_WARM = "import sys; from contracts.endpoints import Endpoints; from contracts.registry import Registry; "
_WARM += "Registry(Endpoints.model_validate_json(sys.argv[1])).prepare()"


def run_demo(profile: str, requests: int, port: int | None, no_cache: bool, as_json: bool) -> None:
    """Train, serve, ask, and show; in a terminal the endpoint then stays until Ctrl-C."""
    began = time.monotonic()
    endpoints, out = load_endpoints(profile), console()
    warming = _create_registry(endpoints)
    try:
        run = plan_run(endpoints, TASK, options=RunOptions(no_cache=no_cache, profile=profile))
        report = run_with_progress(run, as_json)
    finally:
        if warming is not None:
            warming.wait()
    if not as_json:
        show_gate(out, report["gate"])
    with _endpoint(endpoints, profile, report, port) as endpoint:
        try:
            _serve_and_ask(endpoints, endpoint, report, requests, began, out, as_json)
        except KeyboardInterrupt:
            console(stderr=True).print("\nStopped.")


def _serve_and_ask(
    endpoints: Endpoints,
    endpoint: Endpoint,
    report: dict[str, Any],
    requests: int,
    began: float,
    out: Console,
    as_json: bool,
) -> None:
    endpoint.start()
    days = report["config"]["split"]["test_days"]
    bodies = held_out_requests(endpoints, endpoint.bundle.document, days, requests, seed=report["config"]["seed"])
    with waiting(console(stderr=True), "endpoint") as tell:
        endpoint.wait_ready(tell)
    answers = _ask(endpoint, bodies, out, as_json)
    summary = summarise(endpoint.bundle, answers, CONNECTIONS)
    document = {
        "run": report["run_id"],
        "seconds": round(time.monotonic() - began, 1),
        **summary,
        "endpoint": describe(endpoint),
        "mlflow_url": report["mlflow_url"],
        "model_card": report["model_card"],
    }
    if as_json:
        write_json(document)
    else:
        show_demo(out, document, bodies[0])
    if sys.stdin.isatty() and sys.stdout.isatty() and not as_json:
        out.print("\nThe endpoint stays up until Ctrl-C.")
        endpoint.wait()


def _create_registry(endpoints: Endpoints) -> subprocess.Popen[bytes] | None:
    """Create MLflow's tables while the data is prepared; they take seconds the first time."""
    prefix = "sqlite:///"
    if not endpoints.tracking.startswith(prefix) or Path(endpoints.tracking.removeprefix(prefix)).exists():
        return None
    endpoints.path("home").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _WARM, endpoints.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _endpoint(endpoints: Endpoints, profile: str, report: dict[str, Any], port: int | None) -> Endpoint:
    """The endpoint of the champion, which is the run's model unless the gate preferred the one before.

    A demo takes another port when its own is in use.

    Raises:
        PlatformError: ``code="gate"`` when no version has passed the gate.
    """
    from contracts.bundle import read_bundle

    result = report["result"]
    values = load_deployment(profile, result["name"])
    if port is None:
        port = values.port if is_free(values.port) else free_port()
    if not result["champion"]:
        return _champion(endpoints, profile, report, port)
    served = Served(result["name"], result["version"])
    return Endpoint(endpoints, served, read_bundle(result["path"]), port, values.config)


def _champion(endpoints: Endpoints, profile: str, report: dict[str, Any], port: int) -> Endpoint:
    name = report["result"]["name"]
    try:
        return open_endpoint(endpoints, profile, f"{name}@champion", port)
    except PlatformError as err:
        if err.code != "unknown_model":
            raise
        raise PlatformError(
            "the gate refused the model, and there is none before it to serve",
            detail="; ".join(report["gate"]["reasons"]),
            fix=f"look at it: {report['model_card']}",
            code="gate",
        ) from err


def _ask(endpoint: Endpoint, bodies: list[dict[str, Any]], out: Console, as_json: bool) -> list[Answer]:
    """Send everything; a demo with an unanswered request has failed."""
    send(f"{endpoint.url}/predict", bodies[:20], CONNECTIONS)  # the first requests open connections and caches
    if as_json or not out.is_terminal:
        answers = send(f"{endpoint.url}/predict", bodies, CONNECTIONS)
    else:
        from rich.progress import Progress

        with Progress(console=out, transient=True) as bar:
            task = bar.add_task("requests", total=len(bodies))
            answers = send(
                f"{endpoint.url}/predict", bodies, CONNECTIONS, lambda done, total: bar.update(task, completed=done)
            )
    wrong = [answer for answer in answers if answer.status != 200]
    if wrong:
        raise PlatformError(
            f"{len(wrong)} of {len(answers)} requests were not answered",
            detail=f"the first one: status {wrong[0].status}, {str(wrong[0].body)[:300]}",
            fix=f"see its log: {endpoint.log}",
            code="demo_failed",
        )
    return answers
