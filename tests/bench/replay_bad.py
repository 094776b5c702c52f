"""Challengers that must not stay: worse by their labels, with other scores, slow, erring in 2 % of requests.

Each has passed its gate, and its golden examples are right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.bundle import write_bundle
from contracts.endpoints import Endpoints
from contracts.registry import CHAMPION, Registry
from tests.bench import replay_faults
from tests.bench.replay_parts import MODEL, apart
from tests.bench.replay_story import Stage
from tests.bench.report import Row
from tests.packages import install

if TYPE_CHECKING:
    import pandas as pd

_WARM = ("rollout.quality=0.005", "rollout.warm_seconds=300")  # labels come a week later, when it has 100 % already
_DAYS = {"wrong by labels": 14.0}  # until it is brought; else one: of each day's few frauds the champion answers some


def _other_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """As many frauds, but they are said to be large payments at night."""
    night = frame["event_time"].dt.hour.isin((0, 1, 2, 3, 4, 5, 6))
    count = int(frame["fraud"].sum())
    largest = frame["amount"].where(night).nlargest(count).index
    return frame.assign(fraud=frame.index.isin(largest).astype(int))


def _few_genuine(frame: pd.DataFrame) -> pd.DataFrame:
    """Of the genuine payments one in ten: a model of these takes fraud for ten times as likely."""
    return frame[(frame["fraud"] == 1) | (frame.index % 10 == 0)]


def _trained(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Stage], str]:
    def make(stage: Stage) -> str:
        return stage.train(change, *_WARM)

    return make


def _served_by(engine: str) -> Callable[[Stage], str]:
    """The champion's own model, executed by another engine."""

    def make(stage: Stage) -> str:
        return apart(_publish, stage.parts.home, engine)

    return make


def _publish(home: Path, engine: str) -> str:
    endpoints = Endpoints(home=str(home)).resolved()
    registry = Registry(endpoints)
    bundle = registry.fetch(f"{MODEL}:1")
    fields = bundle.document.model_dump(mode="json", exclude={"files"}) | {"engine": engine}
    copy = write_bundle(bundle.path, endpoints.path("artifacts"), fields)
    return str(registry.publish(copy).version)


def _champion(home: Path) -> str:
    return str(Registry(Endpoints(home=str(home)).resolved()).resolve(f"{MODEL}@{CHAMPION}").version)


BAD: Mapping[str, Callable[[Stage], str]] = {
    "wrong by labels": _trained(_other_labels),
    "scores shifted": _trained(_few_genuine),
    "slow": _served_by("replay_slow"),
    "erring": _served_by("replay_failing"),
}


def rolled_back(stage: Stage, name: str) -> list[Row]:
    """A bad challenger is brought, and goes by itself."""
    packages = stage.folder / "packages"
    packages.mkdir(parents=True)
    source = Path(replay_faults.__file__)
    install(packages, "replay-faults", {source.name: source.read_text()}, {"engines": replay_faults.ENTRIES})
    stage.parts.extra_path = str(packages)
    stage.prepare()
    assert stage.replay is not None
    replay = stage.replay
    version = BAD[name](stage)
    stage.until("some traffic", lambda: replay.days >= _DAYS.get(name, 1.0))
    stage.tell(f"version {version} is brought: {name}")
    stage.parts.fairlead("deploy", f"{MODEL}:{version}", "--strategy", "canary", "--env", "local")
    last = stage.follow(version)
    if last.phase == "rolled_back":
        stage.until("the registry follows", lambda: (found := stage.rollout(version)) and found.withdrawn)
    if last.phase != "rolled_back" or apart(_champion, stage.parts.home) != "1":
        raise AssertionError(f"{name}: {last.phase}: {last.reasons}")
    end = replay.days + 1
    stage.until("a day more", lambda: replay.days >= end)
    stage.look()
    took = stage.at(f"rollout of {version}: roll back") - stage.at(f"rollout of {version}: step")
    own = replay.failed.get(500, 0)
    stage.tell(
        f"version {version} is gone", reason=last.reasons[:2], most=max(each.weight for each in last.transitions)
    )
    rows = [
        Row(case=f"{name}: of traffic until it is rolled back", contestant="fairlead", value=took, unit="s"),
        Row(case=f"{name}: the version's own errors", contestant="fairlead", value=own, unit="requests"),
    ]
    replay.failed.pop(500, None)
    return rows + stage.failed(name)
