"""What the closed loop does while the months go by: nothing, or all of it."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyarrow import parquet

from contracts.audit import AuditLog
from contracts.endpoints import Endpoints
from contracts.registry import Registry
from services.rollout.state import Rollout
from services.rollout.store import Store
from tests.bench.replay_parts import MODEL, Parts, apart, until
from tests.bench.replay_traffic import Replay
from tests.bench.replay_world import CHANGES, Change, World, as_given
from tests.bench.report import Row

if TYPE_CHECKING:
    import pandas as pd

CHANGE_DAY = 4.0
PARTS = ("serve", "monitor", "watch", "prometheus")
# Days of the replay are hours of an operator; limits stay as they are.
_SPLIT = ("split.train_start=null", "split.train_days=6", "split.valid_days=2",
          "split.drop_compromised=false")  # fmt: skip
_ROLLOUT = ("rollout.weights=[10,50,100]", "rollout.step_seconds=2", "rollout.step_samples=40")
_WAIT_DAYS = 28  # until a run finds days to train on, to wait for labels and to test, all after the change
_PATIENCE_DAYS = 55.0
_FOUND = ("alert firing: FairleadDrift", "alert firing: FairleadQuality", "a run starts")
_TOLD = ("metric", "value", "against", "difference", "interval", "rows_compared")
_NORMAL_DAYS = 8  # labels come after seven


class Stage:
    """One scenario: its world, its parts, and what has happened when (seconds and days since the replay began)."""

    def __init__(self, folder: Path, months: pd.DataFrame, day: float) -> None:
        self.folder, self.day, self._months = folder / "stage", day, months
        self._trained = folder
        shutil.rmtree(self.folder, ignore_errors=True)
        self.events: list[dict[str, Any]] = []
        self.parts = Parts(self.folder / "home", day)
        self.replay: Replay | None = None
        self._began = time.monotonic()
        self._aimed = 0.0
        self.highest: dict[str, str] = {}  # of each alert: pending, or firing

    def prepare(self, change: Change | None = None) -> None:
        """Make the world, take the champion of what was before, and start all parts and the traffic."""
        self.world = World(self._months, self.folder / "world", change, CHANGE_DAY)
        trained = self._trained / f"trained-{self.world.start:%m-%d}"
        if not trained.exists():
            self._train_champion()
            shutil.copytree(self.parts.home, trained)
        shutil.copytree(trained, self.parts.home, dirs_exist_ok=True)
        self.parts.start("serve")
        self.replay = Replay(self.world, self.parts.url, self.parts.home, self.day)
        self.replay.begin()
        self._began = time.monotonic()
        for name in PARTS[1:]:
            self.parts.start(name)
        self.tell("the replay begins")

    def _train_champion(self) -> None:
        source = str(self.world.source)
        wait = f"loop.wait_hours={_WAIT_DAYS * self.day / 3600}"
        loop = (f'loop.source="{source}"', wait, "loop.cooldown_hours=0.01", "loop.runs_per_week=9")
        words = [part for one in (*_SPLIT, *_ROLLOUT, "rollout.warm_seconds=5", *loop) for part in ("--set", one)]
        self.parts.fairlead("run", MODEL, "--recipe", "handbook", "--source", source, *words)

    def train(self, change: Change, *settings: str) -> str:
        """Train a challenger on what was before, changed so; its gate's verdict is overridden where it has to be."""
        before = self.world.known(self.world.start)
        file = self.folder / "world" / "challenger.parquet"
        parquet.write_table(as_given(change(before.reset_index(drop=True))), file)
        words = [part for one in (*_SPLIT, *_ROLLOUT, *settings) for part in ("--set", one)]
        result = self.parts.fairlead("run", MODEL, "--recipe", "handbook", "--source", str(file), *words, codes=(0, 3))
        version = str(result["result"]["version"])
        passed = bool(result["result"]["gate_passed"])
        self.tell(f"version {version} is trained", gate_passed=passed)
        if not passed:
            self.parts.fairlead("promote", f"{MODEL}:{version}", "--override", "the proof needs it")
        return version

    def close(self) -> None:
        """End traffic and parts."""
        if self.replay is not None:
            self.replay.stop()
        self.parts.stop()

    def tell(self, what: str, **more: Any) -> None:
        """Note an event."""
        days = self.replay.days if self.replay else 0.0
        event = {"seconds": round(time.monotonic() - self._began, 1), "day": round(days, 2), "what": what, **more}
        self.events.append(event)
        sys.stderr.write(f"{event['seconds']:7.1f} s  day {event['day']:5.1f}  {what} {more or ''}\n")

    def look(self) -> None:
        """Note what alerts are new, and keep Prometheus' targets as they are."""
        assert self.replay is not None
        if self.replay.error:
            raise RuntimeError(self.replay.error)
        if time.monotonic() - self._aimed > 1:
            self.parts.aim()
            self._aimed = time.monotonic()
        for alert in self.parts.alerts():
            labels = alert["labels"]
            which = " ".join(labels[key] for key in ("alertname", "version", "input", "metric", "slice", "component")
                             if labels.get(key))  # fmt: skip
            if self.highest.get(which) not in (alert["state"], "firing"):
                self.highest[which] = alert["state"]
                self.tell(f"alert {alert['state']}: {which}")

    def until(self, what: str, look: Callable[[], Any], days: float = _PATIENCE_DAYS) -> Any:
        """The first answer of `look` that is something, while alerts are noted.

        Raises:
            TimeoutError: `days` of the replay are over, or all of it.
        """
        assert self.replay is not None
        end = self.replay.days + days
        while not (found := look()):
            self.look()
            if self.replay.days > end or self.replay.finished:
                raise TimeoutError(f"day {self.replay.days:.1f}, in vain: {what}")
            time.sleep(0.2)
        self.look()
        return found

    @property
    def watched(self) -> dict[str, Any]:
        """What the monitor says of the version that is served."""
        found = self.parts.read("predictions", MODEL, "monitor", "report.json")
        served = Store(self.parts.home / "rollouts").read(MODEL)
        one: dict[str, Any] = found.get("versions", {}).get(served.version if served else "", {})
        return one

    @property
    def loop(self) -> dict[str, Any]:
        return self.parts.read("bundles", ".loop", MODEL, "state.json")

    def rollout(self, candidate: str) -> Rollout | None:
        served = Store(self.parts.home / "rollouts").read(MODEL)
        found = served.rollout if served else None
        return found if found and found.candidate == candidate else None

    def follow(self, candidate: str) -> Rollout:
        """Note each transition of a rollout until it has ended."""
        told = 0

        def ended() -> Rollout | None:
            nonlocal told
            found = self.rollout(candidate)
            for one in found.transitions[told:] if found else ():
                self.tell(f"rollout of {candidate}: {one.action} at {one.weight:g} %", reason=one.reason)
                told += 1
            return found if found and found.ended else None

        last: Rollout = self.until(f"the rollout of {candidate} ends", ended)
        return last

    def at(self, what: str) -> float:
        """When something began that happened; NaN if it did not."""
        return next((one["seconds"] for one in self.events if one["what"].startswith(what)), float("nan"))

    def failed(self, case: str) -> list[Row]:
        """Requests, and those that failed."""
        assert self.replay is not None
        failed = dict(sorted(self.replay.failed.items()))
        self.tell("requests", asked=self.replay.asked, failed=failed, labelled=self.replay.labelled,
                  by_version=dict(self.replay.answered), seconds_behind=round(self.replay.behind, 1))  # fmt: skip
        return [
            Row(case=f"{case}: requests", contestant="fairlead", value=self.replay.asked, unit="requests"),
            Row(
                case=f"{case}: failed", contestant="fairlead", value=sum(failed.values()), unit="requests", goal="<= 0"
            ),
        ]


def findings(watched: dict[str, Any]) -> list[str]:
    """Inputs that drift, and metrics that dropped."""
    dropped = [
        f"{one['metric']} {one.get('slice') or ''}".strip() for one in watched.get("quality", ()) if one.get("dropped")
    ]
    return [*watched.get("drifted", ()), *dropped]


def stationary(stage: Stage) -> list[Row]:
    """Nothing changes: no alarm, no run, until the months are over."""
    stage.prepare()
    assert stage.replay is not None
    alarms: set[str] = set()
    while not stage.replay.finished:
        stage.look()
        for new in set(findings(stage.watched)) - alarms:
            alarms.add(new)
            stage.tell(f"the monitor found: {new}", **_numbers(stage.watched, new))
        time.sleep(0.5)
    runs = [one for one in _log(stage).read() if one.action == "start_run"]
    firing = [name for name, state in stage.highest.items() if state == "firing"]
    stage.tell("the months are over", firing=firing, pending=len(stage.highest) - len(firing), runs=len(runs))
    case = "nothing changes"
    return [
        Row(case=f"{case}: days", contestant="fairlead", value=stage.replay.days, unit="days"),
        Row(case=f"{case}: alerts", contestant="fairlead", value=len(firing), unit="alerts", goal="<= 0"),
        Row(case=f"{case}: runs", contestant="fairlead", value=len(runs), unit="runs", goal="<= 0"),
        *stage.failed(case),
    ]


def _numbers(watched: dict[str, Any], name: str) -> dict[str, Any]:
    one = watched.get("inputs", {}).get(name, {})
    return {key: one[key] for key in ("psi", "noise_floor", "evidence", "rows", "window_begins") if key in one}


def _log(stage: Stage) -> AuditLog:
    return AuditLog.of(Endpoints(home=str(stage.parts.home)).resolved())


def drifts(stage: Stage, name: str) -> list[Row]:
    """The world changes on a day; the loop goes on until the version that is served finds it normal."""
    stage.prepare(CHANGES[name])
    until_changed(stage)
    learn(stage)
    return conclusion(stage, name)


def until_changed(stage: Stage) -> None:
    """Wait for the day of the change; nothing may have happened by then."""
    assert stage.replay is not None
    replay = stage.replay
    stage.until("the change", lambda: replay.days >= CHANGE_DAY)
    early = [one["what"] for one in stage.events if one["day"] < CHANGE_DAY and one["what"].startswith(_FOUND)]
    if early or stage.loop.get("started"):
        raise AssertionError(f"before the change: {early}, {stage.loop.get('started')}")
    stage.tell("the world changes")


def learn(stage: Stage, at: Callable[[str], None] = lambda moment: None) -> None:
    """Follow runs and rollouts until nothing is found any more; `at` is called in each stage of the first of them.

    The months may be over before, as windows of 30 days go on to change: then a version has taken over at least.
    """
    found = stage.until("the change is seen", lambda: findings(stage.watched))
    stage.tell("the change is seen", found=found[:6], of=len(found))
    at("seen")
    try:
        _until_normal(stage, at)
    except TimeoutError as err:
        assert stage.replay is not None
        if not stage.replay.finished or math.isnan(stage.at("version 2 has 100 %")):
            raise
        stage.tell(f"the months are over: {err}", found=findings(stage.watched))


def _until_normal(stage: Stage, at: Callable[[str], None]) -> None:
    run, version = "", "1"
    while True:
        run = stage.until("a run starts", partial(_new_run, stage, run))
        stage.tell("a run starts", run=run)
        at("running")
        stage.until("the run ends", lambda: stage.loop.get("run") == "")
        version = _taken_over(stage, version, at)
        if _is_normal(stage):
            stage.tell(f"version {version} finds the world normal")
            return


def _new_run(stage: Stage, before: str) -> str:
    run = str(stage.loop.get("run") or "")
    return run if run != before else ""


def _taken_over(stage: Stage, version: str, at: Callable[[str], None]) -> str:
    """Follow what the run brought; the version that is served then."""
    candidate = stage.loop.get("candidate") or ""
    if not candidate or candidate == version:
        stage.tell("the gate refused the model", said=stage.loop.get("reason"))
        return version
    stage.tell(f"the gate lets {candidate} through", compared=apart(_compared, stage.parts.home, candidate))
    stage.until("a rollout begins", lambda: stage.rollout(candidate))
    at("rollout")
    if stage.follow(candidate).phase != "promoted":
        return version
    stage.tell(f"version {candidate} has 100 %")
    return candidate


def _is_normal(stage: Stage) -> bool:
    """Whether nothing is found of the served version any more, by its own labels too; else the next run has begun."""
    assert stage.replay is not None
    replay = stage.replay
    end = replay.days + _NORMAL_DAYS

    def known() -> str:
        if _new_run(stage, ""):
            return "run"
        return "normal" if replay.days >= end and not findings(stage.watched) else ""

    return bool(stage.until("nothing is found any more, or the next run", known) == "normal")


def _compared(home: Path, version: str) -> list[dict[str, Any]]:
    """The gate's comparisons of a version with the champion."""
    document = Registry(Endpoints(home=str(home)).resolved()).fetch(f"{MODEL}:{version}").document
    checks = [one.model_dump(mode="json") for one in document.gate.checks]
    return [{name: one[name] for name in _TOLD} for one in checks if one["difference"] is not None]


def conclusion(stage: Stage, name: str) -> list[Row]:
    """Times since the change, runs and requests."""
    changed = stage.at("the world changes")
    rows = []
    for what, event in (
        ("seen", "the change is seen"),
        ("alert pending", "alert pending: FairleadDrift"),
        ("alert firing", "alert firing"),
        ("run started", "a run starts"),
        ("first rollout done", "version 2 has 100 %"),
        ("normal again", next((e["what"] for e in reversed(stage.events) if e["what"].endswith("normal")), "-")),
    ):
        took = stage.at(event) - changed
        if not math.isnan(took):
            rows.append(Row(case=f"{name}: {what}", contestant="fairlead", value=took, unit="s"))
    log = _log(stage)
    log.verify()
    runs = [one for one in log.read() if one.action == "start_run"]
    rows.append(Row(case=f"{name}: runs", contestant="fairlead", value=len(runs), unit="runs"))
    return rows + stage.failed(name)


def resists(stage: Stage) -> list[Row]:
    """Each part is killed in each stage of the loop, and the log's folder is taken away: the end is the same."""
    name = "kills"
    stage.prepare(CHANGES["amounts in cents"])
    seen: set[str] = set()

    def kill(moment: str) -> None:
        if moment in seen:
            return
        seen.add(moment)
        for part in ("watch", "monitor", "prometheus", "serve", "envoy", "log"):
            stage.tell(f"{part} is killed", stage=moment)
            break_part(stage, part)

    stage.until("some traffic", lambda: stage.replay is not None and stage.replay.days >= 1)
    kill("quiet")
    until_changed(stage)
    learn(stage, kill)
    return conclusion(stage, name)


def break_part(stage: Stage, part: str) -> None:
    """Kill a part, and start it again a little later; Envoy is started again by who looks after it."""
    if part == "log":
        folder = stage.parts.home / "predictions"
        away = folder.with_name("predictions.away")
        folder.rename(away)
        folder.write_text("not a folder")
        time.sleep(2)
        folder.unlink()
        away.rename(folder)
        return
    stage.parts.kill(part)
    time.sleep(1)
    if part != "envoy":
        stage.parts.start(part)
    else:
        until("the router is back", lambda: stage.parts.notes.router is not None)
