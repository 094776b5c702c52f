"""The versions of one model as processes of this machine behind one router; those of an earlier command are kept."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from contracts import storage
from contracts.bundle import DOCUMENT
from contracts.document import Document
from contracts.errors import PlatformError
from contracts.ports import free_port
from deploy.cli.machine.kept_processes import KeptProcess
from deploy.cli.machine.ports import HOST
from deploy.cli.serving.endpoint import Endpoint, tail
from deploy.cli.serving.router import Router
from services.rollout.envoy import Address, Routing
from services.rollout.observation import NO_LABELS, Labelled, Observation, Seen, read_counts

_PATIENCE = 35.0  # seconds that a version has to finish what it answers
_AGAIN = 5.0  # seconds until a process that ended by itself is started again


class Note(Document):
    """A process as it is written down: where it listens, for gRPC too (0: nowhere), its number and start."""

    port: int
    grpc: int = 0
    pid: int
    started: str


class Notes(Document):
    """All processes of one served model."""

    router: Note | None = None
    admin: int = 0
    versions: dict[str, Note] = Field({})


@dataclass
class Member:
    """One version that runs or is leaving."""

    endpoint: Endpoint
    process: KeptProcess
    grpc: int = 0
    leaving: float | None = None


class LocalFleet:
    """See `services.rollout.keeper.Fleet`.

    Args:
        make: the endpoint of a version on a port, and one for gRPC (0: none), not started.
        promote: makes a version the registry's champion.  withdraw: takes that from a version, for another one.
        clock: seconds.  labels: what they say, by version.
        grpc: where clients of gRPC ask; None: nowhere, and no version takes any.
    """

    def __init__(
        self,
        folder: Path,
        listen: tuple[Address, ...],
        make: Callable[[str, int, int], Endpoint],
        promote: Callable[[str, str], None],
        clock: Callable[[], float],
        labels: Callable[[], Mapping[str, Labelled]] = dict,
        withdraw: Callable[[str, str], None] = lambda version, champion: None,
        grpc: Address | None = None,
    ) -> None:
        self._file, self._make, self._promote, self._clock = folder / "processes.json", make, promote, clock
        self._listen, self._grpc, self._labels, self._withdraw = listen, grpc, labels, withdraw
        self._tried = 0.0
        self._members: dict[str, Member] = {}
        self._failed: dict[str, str] = {}  # versions that could not be started, and why
        self.routing = Routing(versions={}, champion="")
        notes = Notes.model_validate_json(self._file.read_bytes()) if self._file.exists() else Notes()
        self._envoy = self._taken_over(notes)
        self._admin = notes.admin if self._envoy else free_port()
        self.router = Router(folder, listen, Address(HOST, self._admin), grpc)

    def _taken_over(self, notes: Notes) -> KeptProcess | None:
        """Keep the versions that run, and the router that listens where it should; returns the router."""
        for version, note in notes.versions.items():
            process = KeptProcess(note.pid, note.started)
            if bool(note.grpc) != bool(self._grpc):
                process.end(now=True)
            elif process.alive():
                try:
                    self._members[version] = Member(self._make(version, note.port, note.grpc), process, note.grpc)
                except PlatformError as err:
                    self._failed[version] = f"{err.headline}: {err.detail}"
                    process.end()
        if notes.router is None:
            return None
        router = KeptProcess(notes.router.pid, notes.router.started)
        if (notes.router.port, notes.router.grpc) == self._ports and router.alive():
            return router
        router.end(now=True)
        return None

    @property
    def _ports(self) -> tuple[int, int]:
        """That clients ask; 0 where gRPC has none."""
        return self._listen[0].port, self._grpc.port if self._grpc else 0

    @property
    def running(self) -> list[str]:
        """Versions that run."""
        return sorted(self._members)

    def why_not(self, version: str) -> str:
        """Why a version could not be started."""
        return self._failed.get(version, "")

    def endpoint(self, version: str) -> Endpoint:
        """Of a version that runs."""
        return self._members[version].endpoint

    def promote(self, version: str, reason: str) -> None:
        """Make a version the registry's champion."""
        self._promote(version, reason)

    def withdraw(self, version: str, champion: str) -> None:
        """Take the registry's champion from a version."""
        self._withdraw(version, champion)

    def arrange(self, champion: str, candidate: str, weight: float, mirrors: bool, drafts: bool = False) -> None:
        """Start, route, and let those that are not wanted leave: first their traffic, a look later they themselves."""
        wanted = [version for version in (champion, candidate) if version]
        for version in wanted:
            self._run(version, again=version == champion)
        self._leave(wanted)
        there = [version for version in wanted if version in self._members]
        self.routing = Routing(
            **self._addresses(there),
            champion=champion,
            candidate=candidate if candidate in there else "",
            weight=weight,
            mirrors=mirrors,
            drafts=drafts and candidate in there,
        )
        self.router.write(self.routing, Routing(**self._addresses(self._members), champion=""))
        if self._envoy is None or not self._envoy.alive():
            self._envoy = self.router.start()
        self._write()

    def _addresses(self, versions: Iterable[str]) -> dict[str, dict[str, Address]]:
        members = {version: self._members[version] for version in versions}
        return {
            "versions": {version: Address(HOST, one.endpoint.port) for version, one in members.items()},
            "grpc": {version: Address(HOST, one.grpc) for version, one in members.items() if one.grpc},
        }

    def _run(self, version: str, again: bool) -> None:
        member = self._members.get(version)
        if member is not None:
            member.leaving = None
            if member.process.alive():
                return
            if not again or self._clock() - self._tried < _AGAIN:
                return
            self._tried = self._clock()
        try:
            grpc = free_port() if self._grpc else 0
            endpoint = self._make(version, free_port(), grpc)
            endpoint.start()
        except PlatformError as err:
            self._failed[version] = f"{err.headline}: {err.detail}"
            return
        self._failed.pop(version, None)
        assert endpoint.pid is not None
        self._members[version] = Member(endpoint, KeptProcess.of(endpoint.pid), grpc)

    def _leave(self, wanted: list[str]) -> None:
        now = self._clock()
        for version, member in list(self._members.items()):
            if version in wanted:
                continue
            if not member.process.alive():
                del self._members[version]
            elif member.leaving is None:
                member.leaving = now
            elif now - member.leaving < _PATIENCE:
                member.process.end()
            else:
                member.process.end(now=True)

    def observe(self, champion: str, candidate: str) -> Observation:
        """Health as Envoy sees it, and counters from each version's own metrics."""
        routed = self.router.seen()
        gone = self._failed.get(champion, "")
        if (
            not gone
            and (member := self._members.get(champion))
            and not (member.endpoint.bundle.path / DOCUMENT).exists()
        ):
            gone = f"{member.endpoint.bundle.path} is not there any more"
        return Observation(champion=self._seen(champion, routed), candidate=self._seen(candidate, routed), gone=gone)

    def _seen(self, version: str, routed: Mapping[str, tuple[bool, float]] | None) -> Seen:
        member = self._members.get(version)
        if member is None:
            return Seen(ready=False, note="it does not run", ended=self._failed.get(version, ""))
        if not member.process.alive():
            ended = f"the end of {member.endpoint.log} is: {tail(member.endpoint.log, 300)}"
            return Seen(ready=False, note="its process ended", ended=ended)
        problem = member.endpoint.not_ready()
        if problem is not None:
            return Seen(ready=False, note=problem["title"])
        if routed is None:
            return Seen(ready=True, note="the router does not answer")
        healthy, unreached = routed.get(version, (False, 0.0))
        if not healthy:
            return Seen(ready=False, note="the router does not take it for healthy")
        try:
            with urllib.request.urlopen(f"{member.endpoint.url}/metrics", timeout=2) as response:
                counts = read_counts(response.read().decode(), unreached)
        except OSError as err:
            return Seen(ready=True, note=f"its metrics cannot be read: {err}")
        found = self._labels().get(version, NO_LABELS)
        return Seen(ready=True, counts=counts.model_copy(update=found._asdict()))

    def stop(self) -> None:
        """End the router, then all versions, and wait for them."""
        for process in ([self._envoy] if self._envoy else []) + [one.process for one in self._members.values()]:
            process.end()
        until = self._clock() + _PATIENCE
        while any(one.process.alive() for one in self._members.values()) and self._clock() < until:
            time.sleep(0.05)
        for member in self._members.values():
            member.process.end(now=True)
        self._file.unlink(missing_ok=True)

    def _write(self) -> None:
        assert self._envoy is not None
        port, grpc = self._ports
        router = Note(port=port, grpc=grpc, pid=self._envoy.pid, started=self._envoy.started)
        versions = {
            version: Note(port=one.endpoint.port, grpc=one.grpc, pid=one.process.pid, started=one.process.started)
            for version, one in self._members.items()
        }
        text = Notes(router=router, admin=self._admin, versions=versions).model_dump_json()
        if not self._file.exists() or self._file.read_text(encoding="utf-8") != text:
            storage.write_bytes(str(self._file), text.encode())
