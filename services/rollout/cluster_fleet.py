"""The versions of one model in a cluster: two slots behind a router, seen through their own metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from contracts import storage
from contracts.bundle import DOCUMENT
from contracts.errors import PlatformError
from services.rollout.bootstrap import TELLS
from services.rollout.champion import Champion
from services.rollout.envoy import Address, Routing
from services.rollout.observation import NO_LABELS, Counts, Labelled, Observation, Seen
from services.rollout.pod_counters import Fetch, Followed, Resolve, Unreached, addresses, at, fetched
from services.rollout.router_statistics import STATISTICS, routed
from services.rollout.slots import Slots
from services.rollout.store import Place, Served

SERVES = 3000  # port of a version's pods
_BUNDLE = 30.0  # seconds between looks whether the champion's bundle is there


class Splitter(Protocol):
    """What splits the traffic as a routing says, and says what it sees of the versions."""

    def put(self, routing: Routing) -> None:
        """Split so from now on."""
        ...

    def seen(self) -> Mapping[str, tuple[bool, float]] | None:
        """By version whether it takes traffic, and how many requests did not reach it; None: it does not answer."""
        ...


class Envoys:
    """The release's Envoys, which ask for the routing themselves; read behind a headless Service."""

    def __init__(self, service: str, resolve: Resolve = addresses, fetch: Fetch = fetched) -> None:
        self._service, self._resolve, self._fetch = service, resolve, fetch
        self._unreached: dict[str, Unreached] = {}

    def put(self, routing: Routing) -> None:
        """Nothing: they ask."""

    def seen(self) -> dict[str, tuple[bool, float]] | None:
        """Healthy is what all of them take for healthy."""
        texts = self._fetch(at(one, TELLS, STATISTICS) for one in self._resolve(self._service))
        each = {url: routed(text) for url, text in texts.items()}
        if not each:
            return None
        found = {}
        for version in {version for one in each.values() for version in one}:
            healthy = all(one.get(version, (False, 0.0))[0] for one in each.values())
            counted = [(url, one[version][1]) for url, one in each.items() if version in one]
            found[version] = (healthy, self._unreached.setdefault(version, Unreached()).look(counted))
        return found


class ClusterFleet:
    """See `services.rollout.keeper.Fleet`.

    Args:
        served: the state now, which says where bundles are.  labels: what they say, by version.
        grpc_port: of a version's pods; 0: they take none.
    """

    def __init__(
        self,
        slots: Slots,
        splitter: Splitter,
        champion: Champion,
        served: Callable[[], Served],
        labels: Callable[[], Mapping[str, Labelled]],
        resolve: Resolve = addresses,
        fetch: Fetch = fetched,
        grpc_port: int = 0,
    ) -> None:
        self._grpc_port = grpc_port
        self._slots, self._splitter, self._champion, self._served = slots, splitter, champion, served
        self._labels, self._resolve, self._fetch = labels, resolve, fetch
        self._followed = _resumed(served())
        self._up: set[str] = set(self._followed)
        self._bundle: tuple[float, str] = (-_BUNDLE, "")
        self.routing: Routing | None = None

    def arrange(self, champion: str, candidate: str, weight: float, mirrors: bool, drafts: bool = False) -> None:
        """Let these versions have a slot each, and route so."""
        self._slots.arrange(self._served().places, champion, candidate)
        slots = {version: self._slots.slot(version) for version in (champion, candidate) if version}
        # A cluster that goes before the routes to it would cost requests: routers ask for the two one after the other.
        there = {version: Address(slot, SERVES) for version, slot in {**self._slots.leaving, **slots}.items() if slot}
        if champion not in there:
            return  # routers keep what they have
        placed = candidate if candidate in there else ""
        routing = Routing(
            versions=there,
            grpc={one: at._replace(port=self._grpc_port) for one, at in there.items()} if self._grpc_port else {},
            champion=champion,
            candidate=placed,
            weight=weight if placed else 0,
            mirrors=mirrors,
            drafts=drafts and bool(placed),
        )
        self._splitter.put(routing)
        self.routing = routing
        for version in set(self._followed) - set(slots):
            del self._followed[version]
        self._up &= set(slots)

    def observe(self, champion: str, candidate: str) -> Observation:
        """Health as the router sees it, and counters from the versions' own metrics."""
        self._slots.look()
        self._up.add(champion)
        seen = self._splitter.seen()
        return Observation(
            champion=self._seen(champion, seen), candidate=self._seen(candidate, seen), gone=self._gone(champion)
        )

    def promote(self, version: str, reason: str) -> None:
        """Make a version the registry's champion."""
        self._champion.promote(version)

    def withdraw(self, version: str, champion: str) -> None:
        """Take the registry's champion from a version."""
        self._champion.withdraw(version, champion)

    def _seen(self, version: str, seen: Mapping[str, tuple[bool, float]] | None) -> Seen:
        slot = self._slots.slot(version)
        if not slot:
            return Seen(ready=False, note="it waits for a free slot")
        pods = self._slots.pods[slot]
        if not pods.ready or (version not in self._up and pods.ready < pods.wanted):
            return Seen(ready=False, note=f"{pods.ready} of {pods.wanted} pods are ready")
        self._up.add(version)
        if seen is None:
            return Seen(ready=True, note="the router does not answer")
        healthy, unreached = seen.get(version, (False, 0.0))
        if not healthy:
            return Seen(ready=False, note="the router does not take it for healthy")
        texts = self._fetch(at(pod, SERVES, "/metrics") for pod in self._resolve(slot))
        counts = self._followed.setdefault(version, Followed(version)).look(texts.items())
        if counts is None:
            return Seen(ready=True, note="the metrics of its pods cannot be read")
        more = {"unreached": unreached, **self._labels().get(version, NO_LABELS)._asdict()}
        return Seen(ready=True, counts=counts.model_copy(update=more))

    def _gone(self, champion: str) -> str:
        """Why the champion's pods could not start again; a storage that is away is no reason."""
        place: Place | None = self._served().places.get(champion)
        if place is not None and time.monotonic() - self._bundle[0] >= _BUNDLE:
            self._bundle = (time.monotonic(), self._bundle[1])
            try:
                there = storage.exists(storage.join(place.source, DOCUMENT))
            except PlatformError:
                return self._bundle[1]
            self._bundle = (self._bundle[0], "" if there else f"{place.source} is not there any more")
        return self._bundle[1]


def _resumed(served: Served) -> dict[str, Followed]:
    """What was counted for a rollout that another keeper began."""
    rollout = served.rollout
    if rollout is None or rollout.ended or rollout.last is None:
        return {}
    champion, candidate = rollout.last
    return {
        rollout.champion: Followed(rollout.champion, _own(champion)),
        rollout.candidate: Followed(rollout.candidate, _own(candidate)),
    }


def _own(counts: Counts) -> Counts:
    return counts.model_copy(update={"unreached": 0.0, **NO_LABELS._asdict()})
