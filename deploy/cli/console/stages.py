"""How rollouts stand: by the documents of this machine, or by the keepers of a cluster's releases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from contracts import storage
from contracts.errors import PlatformError
from deploy.cli.console.kept import Fresh, Kept
from deploy.cli.console.watched import number
from services.console.documents import Stage
from services.rollout.state import ENDED

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Cluster

_AT_ONCE = 8  # keepers that are asked at the same time
_PATIENCE = 2.0  # seconds that a page's keeper may be silent


class Stages(Protocol):
    """The rollouts of a profile."""

    def of(self, model: str) -> Stage | None:
        """The rollout of a model, now or the last one; None where there was none, or it cannot be read."""
        ...

    def models(self) -> Iterable[str]:
        """Models that have or had a rollout."""
        ...

    def version(self, model: str) -> str:
        """The version that is proven, where only its keeper knows; else ""."""
        ...


class LocalStages:
    """Rollouts of `fairlead serve --rollouts`, in a folder of states."""

    def __init__(self, folder: str) -> None:
        self._folder, self._kept = folder, Kept(read_rollout)

    def of(self, model: str) -> Stage | None:
        """Of the state's file."""
        return self._kept.of(storage.join(self._folder, f"{model}.json"), model)

    def models(self) -> Iterable[str]:
        """By the names of the files."""
        try:
            return sorted(
                name.removesuffix(".json") for name in storage.list_names(self._folder) if name.endswith(".json")
            )
        except PlatformError:
            return []

    def version(self, model: str) -> str:
        """No machine has releases."""
        return ""


class ClusterStages:
    """Rollouts of the releases of a cluster.

    Args:
        ask: the state that the keeper of a model tells, as JSON; None where the model has no keeper.
        releases: models that have one, by name.
    """

    def __init__(self, ask: Callable[[str], bytes | None], releases: Callable[[], Mapping[str, Any]]) -> None:
        self._ask, self._releases = ask, releases
        self._found: Fresh[dict[str, tuple[str, Stage | None]]] = Fresh(self._look)

    def of(self, model: str) -> Stage | None:
        """Of the last look, some seconds ago at most."""
        return self._found.get().get(model, ("", None))[1]

    def models(self) -> Iterable[str]:
        """Those whose keeper has answered."""
        return sorted(self._found.get())

    def version(self, model: str) -> str:
        """Of the last look."""
        return self._found.get().get(model, ("", None))[0]

    def _look(self) -> dict[str, tuple[str, Stage | None]]:
        def asked(model: str) -> tuple[str, Stage | None] | None:
            try:
                said = self._ask(model)
                return None if said is None else (str(json.loads(said).get("version") or ""), stage_of(said, model))
            except (PlatformError, OSError, ValueError):
                return None

        try:
            names = sorted(self._releases())
        except PlatformError:
            names = []
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = dict(zip(names, pool.map(asked, names), strict=True))
        return {name: told for name, told in found.items() if told is not None}


def ask_keeper(cluster: Cluster, model: str) -> bytes | None:
    """What the keeper of a model's release says now; None where the release has none."""
    from deploy.cli.releases.keeper import find_keeper

    keeper = find_keeper(cluster, model)
    return None if keeper is None else keeper.read(patience=_PATIENCE).model_dump_json().encode()


def read_rollout(place: str, model: str) -> Stage | None:
    """The rollout that a document tells; None where it tells none, or cannot be read."""
    try:
        return stage_of(storage.read_bytes(place), model)
    except (PlatformError, ValueError):
        return None


def stage_of(document: bytes, model: str) -> Stage | None:
    """The rollout of a state of another program, of which whatever is odd is left out.

    Raises:
        ValueError: it is no JSON.
    """
    found = json.loads(document)
    said = found.get("rollout") if isinstance(found, dict) else None
    if not isinstance(said, dict):
        return None
    stage = Stage(
        model=model,
        phase="paused"
        if said.get("paused") and said.get("phase") in ("starting", "running")
        else str(said.get("phase")),
        strategy=str(said.get("strategy") or ""),
        champion=str(said.get("champion") or ""),
        challenger=str(said.get("candidate") or ""),
        started=_stamp(said.get("began")),
        ended=said.get("phase") in ENDED,
        reason="; ".join(str(reason) for reason in said.get("reasons") or []),
    )
    changes = [one for one in said.get("transitions") or [] if isinstance(one, dict)]
    events = [(_stamp(one.get("at")), str(one.get("action")), str(one.get("reason") or "")) for one in changes]
    weight = number(changes[-1].get("weight")) if changes else None
    if weight is None or not stage.champion or not stage.challenger:
        return replace(stage, events=events)
    share = weight / 100
    return replace(stage, events=events, weights={stage.champion: 1 - share, stage.challenger: share})


def _stamp(given: Any) -> str:
    at = number(given)
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at else ""
