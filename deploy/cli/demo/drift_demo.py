"""``fairlead demo --drift``: prices double, the loop notices, trains, and lets the better model take over by itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.ports import free_port
from deploy.cli.demo.drift_world import Traffic, World, make_world
from deploy.cli.machine.subprocesses import stop_group
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.runs.workflow import RunOptions, plan_run
from deploy.cli.serving.endpoint import tail
from deploy.cli.serving.router import envoy_program
from deploy.cli.terminal.output import console, write_json
from deploy.cli.training.start_run import run_with_progress

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints
    from services.rollout.state import Rollout

MODEL = "fraud"
SEED = 5
RATE, LABEL_DELAY = 100.0, 5.0  # requests and seconds; the demo's week
_QUIET = 25.0  # seconds of the usual traffic
_PATIENCE = 240.0  # seconds that each part of the story may take
# What hours are in production are seconds here; the margins stay.
_POLICY = (
    "rollout.step_seconds=2",
    "rollout.step_samples=40",
    "rollout.warm_seconds=5",
    "rollout.weights=[5,25,50,100]",
)
# A false alarm costs nothing: nearly every payment is one. Its golden examples are right, and so is its ranking.
_CARELESS = ("cost.false_positive=0.01", "cost.false_negative=1000.0")


@dataclass
class Story:
    """What has happened, in seconds since the traffic began.

    Attributes:
        events: moment and what happened.  psi: moment -> the amount's PSI.
    """

    out: Console | None
    began: float = field(default_factory=time.monotonic)
    events: list[tuple[float, str]] = field(default_factory=list)
    psi: dict[float, float] = field(default_factory=dict)

    def tell(self, text: str) -> None:
        """Note an event and say it."""
        at = time.monotonic() - self.began
        self.events.append((round(at, 1), text))
        if self.out is not None:
            self.out.print(f"[dim]{at:5.0f} s[/]  {text}", soft_wrap=True)


def run_drift_demo(profile: str, as_json: bool) -> None:
    """Train, serve, change the world, and watch what the loop does; ends with one page of plots.

    It has a home of its own below the profile's, made anew, so that it touches no model of anybody.
    """
    envoy_program()
    home = load_endpoints(profile).scratch("demo-drift")
    shutil.rmtree(home, ignore_errors=True)
    os.environ["FAIRLEAD_HOME"] = str(home)  # of the processes that are started, too
    endpoints, out = load_endpoints(profile), None if as_json else console()
    if endpoints.scratch() != home:
        raise PlatformError(
            f"profile {profile} says where its home is",
            fix="use the profile local, whose home a demo may replace",
            code="bad_option",
        )
    began = time.monotonic()
    world = make_world(home / "world", SEED)
    overrides = [*_POLICY, f'loop.source="{world.after}"']
    plan = plan_run(
        endpoints, MODEL, options=RunOptions(overrides=overrides, source=str(world.before), profile=profile)
    )
    run_with_progress(plan, as_json)
    with _processes(endpoints, profile) as url:
        traffic = Traffic(url, RATE, LABEL_DELAY)
        story = Story(out, began=traffic.began)
        try:
            _tell_drift(endpoints, world, traffic, story)
            bad = _careless(endpoints, world, profile, as_json)
            _tell_bad(endpoints, profile, bad, story)
        finally:
            traffic.stop()
    _check_answered(traffic)
    _conclude(endpoints, traffic, story, time.monotonic() - began, out)


def _tell_drift(endpoints: Endpoints, world: World, traffic: Traffic, story: Story) -> None:
    traffic.ask(world.usual)
    story.tell(f"{RATE:.0f} payments a second are asked about; labels come a week ({LABEL_DELAY:.0f} s) later")
    end = time.monotonic() + _QUIET
    while time.monotonic() < end:
        if drifted := _report(endpoints, story).get("drifted"):
            raise PlatformError("the usual traffic was taken for a change", detail=str(drifted), code="demo_failed")
        time.sleep(1)
    story.tell("nothing changes: no alarm, no run")
    traffic.ask(world.changed)
    story.tell("[bold]prices double[/]")
    found = _until("the change is seen", lambda: _report(endpoints, story).get("drifted"))
    story.tell(f"the monitor sees it: {', '.join(found[:4])}{' and more' if len(found) > 4 else ''}")
    run = _until("the loop starts a run", lambda: _loop(endpoints, story).get("run"))
    story.tell(f"the loop starts {run}")
    rollout = _until("the gate lets the new model through", lambda: _rollout(endpoints, story, "2"))
    traffic.ask(world.settled)  # the features of three weeks later are online by now
    story.tell(f"it has passed the gate: {MODEL}:{rollout.candidate} is on its way")
    _follow(endpoints, story, rollout.candidate)


def _careless(endpoints: Endpoints, world: World, profile: str, as_json: bool) -> str:
    """Train a model that calls nearly every payment a fraud, without promoting it; returns its version."""
    options = RunOptions(overrides=[*_POLICY, *_CARELESS], source=str(world.after), profile=profile)
    run = plan_run(endpoints, MODEL, options=options).having(promote=False)
    return str(run_with_progress(run, as_json)["result"]["version"])


def _tell_bad(endpoints: Endpoints, profile: str, version: str, story: Story) -> None:
    story.tell(f"{MODEL}:{version} passes the gate too, but calls nearly every payment a fraud")
    command = [*_fairlead("deploy", f"{MODEL}:{version}"), "--strategy", "canary", "--env", profile, "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    _follow(endpoints, story, version)


def _follow(endpoints: Endpoints, story: Story, candidate: str) -> None:
    """Tell each transition of a rollout until it has ended."""
    told = 0

    def ended() -> Any:
        nonlocal told
        found = _rollout(endpoints, story, candidate)
        for one in found.transitions[told:] if found else ():
            story.tell(f"  {MODEL}:{candidate} {one.action} at {one.weight:g} %: {one.reason}")
            told += 1
        return found and found.ended

    _until(f"the rollout of {MODEL}:{candidate} ends", ended)


def _until(what: str, look: Callable[[], Any]) -> Any:
    """The first answer of `look` that is something.

    Raises:
        PlatformError: ``code="demo_failed"``: it takes too long.
    """
    end = time.monotonic() + _PATIENCE
    while not (found := look()):
        if time.monotonic() > end:
            raise PlatformError(
                f"waited {_PATIENCE:.0f} s in vain: {what}",
                fix=f"see the logs in {os.environ['FAIRLEAD_HOME']}/logs",
                code="demo_failed",
            )
        time.sleep(0.5)
    return found


def _report(endpoints: Endpoints, story: Story) -> dict[str, Any]:
    """What the monitor says of the model now; the amount's distance is noted."""
    found = _read(endpoints.path("predictions") / MODEL / "monitor" / "report.json")
    versions = found.get("versions", {})
    newest: dict[str, Any] = max(versions.values(), key=lambda one: one.get("newest") or "", default={})
    if amount := newest.get("inputs", {}).get("amount"):
        story.psi[round(time.monotonic() - story.began, 1)] = amount["psi"]
    return found


def _loop(endpoints: Endpoints, story: Story) -> dict[str, Any]:
    _report(endpoints, story)
    return _read(endpoints.path("artifacts") / ".loop" / MODEL / "state.json")


def _rollout(endpoints: Endpoints, story: Story, candidate: str) -> Rollout | None:
    from services.rollout.store import Store

    _report(endpoints, story)
    served = Store(endpoints.scratch("rollouts")).read(MODEL)
    found = served.rollout if served else None
    return found if found and found.candidate == candidate else None


def _read(file: Path) -> dict[str, Any]:
    """A document that may not be there yet; writers replace it whole."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found if isinstance(found, dict) else {}


def _fairlead(*words: str) -> list[str]:
    return [sys.executable, "-m", "deploy.cli", *words]


@contextlib.contextmanager
def _processes(endpoints: Endpoints, profile: str) -> Iterator[str]:
    """The endpoint with its router, the monitor and the loop, each as a person would start it; gives the address."""
    port, logs = free_port(), endpoints.scratch("logs")
    logs.mkdir(parents=True, exist_ok=True)
    commands = {
        "serve": ("serve", MODEL, "--rollouts", "--port", str(port), "--json"),
        "monitor": ("monitor", MODEL, "--every", "1", "--port", "0"),
        "watch": ("watch", MODEL, "--interval", "1"),
    }
    with contextlib.ExitStack() as stack:
        for name, words in commands.items():
            log = stack.enter_context((logs / f"{name}.log").open("w"))
            command = [*_fairlead(*words), "--profile", profile]
            child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
            stack.callback(stop_group, child)
            if name == "serve":
                _until("the model is served", lambda: _is_up(child, logs / "serve.log"))  # noqa: B023  called at once
        yield f"http://127.0.0.1:{port}"


def _is_up(child: subprocess.Popen[bytes], log: Path) -> bool:
    if child.poll() is not None:
        raise PlatformError("the model could not be served", detail=tail(log), fix=f"see {log}", code="demo_failed")
    return '"predict_url"' in log.read_text(encoding="utf-8")


def _check_answered(traffic: Traffic) -> None:
    if answer := traffic.refused:
        failed = sum(second.failed for second in traffic.seconds.values())
        raise PlatformError(
            f"{failed} requests were not answered",
            detail=f"the first one: status {answer.status}, {str(answer.body)[:300]}",
            fix="see the logs of the demo",
            code="demo_failed",
        )


def _conclude(endpoints: Endpoints, traffic: Traffic, story: Story, took: float, out: Console | None) -> None:
    from contracts.audit import AuditLog
    from deploy.cli.demo.drift_page import write_page

    AuditLog.of(endpoints).verify()
    page = write_page(endpoints.scratch("drift.html"), traffic, story.events, story.psi)
    sent = sum(sum(second.requests.values()) for second in traffic.seconds.values())
    document = {"seconds": round(took, 1), "requests": sent, "labels": traffic.labelled, "page": str(page)}
    if out is None:
        write_json({**document, "events": story.events})
        return
    out.print(f"\n{sent} of {sent} requests were answered, {traffic.labelled} labels came back.")
    out.print(f"Page     {page}", soft_wrap=True)
    out.print(f"Audit    FAIRLEAD_HOME={endpoints.scratch()} fairlead audit", soft_wrap=True)
    out.print(f"Took     {took:.0f} s")
