"""``fairlead watch``: the loop's controller on this machine, shown live; and what a person says to it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.audit import AuditLog
from contracts.errors import PlatformError
from contracts.lease import Lease
from contracts.loop_policy import WEEK, LoopPolicy
from deploy.cli.loop.hands import ProfileHands
from deploy.cli.loop.runs import ClusterRuns, LocalRuns, Runs
from deploy.cli.profiles.audit_record import note
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.terminal.output import console, emit, table, write_json
from services.controller.controller import Controller
from services.controller.run_metrics import RunMetrics
from services.controller.state import States, WatchState

if TYPE_CHECKING:
    from rich.table import Table

    from contracts.endpoints import Endpoints
    from contracts.registry import ModelVersion, Registry

_LEAST_LEASE = 60.0  # seconds
_LEASES_PASSES = 3  # that may be missed
_AWAY = (PlatformError, OSError)  # a store that does not answer, or a folder that cannot be read


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """What ``fairlead watch`` is told.

    Attributes:
        interval: seconds between two passes.
        metrics_port: 0 exports none.  metrics_host: address that they are served on.
        overrides: of the policy, ``loop.KEY=VALUE``, for this watch and the runs it starts.
    """

    once: bool = False
    interval: float = 30.0
    prometheus: str = ""
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    overrides: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Line:
    """One model after a pass; `error` is why the pass did not come to its end."""

    state: WatchState
    policy: LoopPolicy
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The line as JSON has it."""
        document = self.state.model_dump(mode="json", exclude={"pending", "source"})
        return {**document, "runs_this_week": self.runs(), "policy": self.policy.model_dump(), "error": self.error}

    def runs(self) -> int:
        """Runs that began in the last seven days."""
        return sum(start > datetime.now(UTC) - WEEK for start in self.state.started)


def loop_place(endpoints: Endpoints) -> str:
    """Where states and the lease of a platform's loop are: beside its models."""
    return storage.join(endpoints.uri("artifacts"), ".loop")


def run_watch(profile: str, models: Sequence[str], options: WatchOptions, as_json: bool) -> None:
    """Watch until Ctrl-C, or look once.

    Raises:
        PlatformError: a model that is not there, or another watch that has the lease, when it looks once.
    """
    watch = Watch(profile, models, options)
    if options.metrics_port:
        watch.export(options.metrics_host, options.metrics_port)
    watch.check()
    try:
        if options.once:
            lines = watch.one_pass()
            emit([line.as_dict() for line in lines], as_json, lambda out: out.print(as_table(lines)))
        elif as_json:
            watch.follow(lambda lines, _: write_json([line.as_dict() for line in lines]))
        else:
            _shown(watch)
    finally:
        with contextlib.suppress(PlatformError):  # a store that is away: it ends by itself
            watch.lease.release()


class Watch:
    """The controller of one profile, and what it needs here."""

    def __init__(self, profile: str, models: Sequence[str], options: WatchOptions) -> None:
        from contracts.registry import Registry

        where = load_profile(profile)
        self._endpoints, self._models, self._options = load_endpoints(profile), models, options
        self._runs: Runs = LocalRuns(self._endpoints) if where.cluster is None else ClusterRuns(where)
        self._registry: Registry = Registry(self._endpoints)
        self._states = States(loop_place(self._endpoints))
        self._hands = ProfileHands(self._endpoints, self._states, self._runs, profile, options.prometheus)
        self._controller = Controller(self._states, AuditLog.of(self._endpoints), self._hands)
        self._changes = _overrides(options.overrides)
        self._policies: dict[str, LoopPolicy] = {}
        self._unreadable: list[ModelVersion] = []
        self._metrics = RunMetrics()
        lasts = max(_LEAST_LEASE, _LEASES_PASSES * options.interval)
        self.lease = Lease(storage.join(self._states.place, "lease"), lasts)

    def check(self) -> None:
        """Refuse models that are not there, and policies that are none, before anything is watched.

        Who follows all models may come before the first one, or before the registry.
        """
        try:
            for version in self._champions():
                self._policy(version)
        except PlatformError as err:
            if self._models or self._options.once or err.code == "bad_config":
                raise

    def export(self, host: str, port: int) -> None:
        """Serve the metrics of runs.

        Raises:
            PlatformError: ``code="port_taken"``.
        """
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry()
        registry.register(self._metrics)
        try:
            start_http_server(port, host, registry)
        except OSError as err:
            raise PlatformError(
                f"cannot listen on {host}:{port}",
                detail=str(err),
                fix="name another port: --metrics-port",
                code="port_taken",
            ) from err

    def follow(self, show: Callable[[list[Line], str], None]) -> None:
        """A pass each interval; while another watch has the lease, its states are shown and nothing is done.

        A store or registry that is away ends nothing: it is said, and the next pass tries again.
        """
        lines: list[Line] = []
        while True:
            began, told = time.monotonic(), ""
            try:
                if self.lease.take():
                    lines = self.one_pass()
                else:
                    lines = self._standing()
                    told = f"another watch acts ({self.lease.holder}); this one takes over when it ends"
            except _AWAY as err:
                told = f"{getattr(err, 'headline', err)}: tried again at the next pass"
            show(lines, told)
            time.sleep(max(0.0, self._options.interval - (time.monotonic() - began)))

    def one_pass(self) -> list[Line]:
        """One pass over each model; what fails for one is said, and the others are watched.

        The lease is renewed for each model: who lost it meanwhile does nothing more.
        """
        champions = self._watched()
        lines = []
        for version, policy in champions:
            if not self.lease.take():
                raise _held(self.lease)
            try:
                state = self._controller.watch(version.name, self._hands.champions[version.name][1].task, policy)
                lines.append(Line(state=state, policy=policy))
            except _AWAY as err:
                said = f"{err.headline}: {err.detail}" if isinstance(err, PlatformError) else str(err)
                lines.append(Line(state=self._state(version), policy=policy, error=said))
        trained = {version.name: datetime.fromisoformat(version.created) for version, _ in champions}
        with contextlib.suppress(*_AWAY):  # what cannot be listed now is as it was
            self._metrics.put(self._runs.latest(), trained)
        return lines

    def _standing(self) -> list[Line]:
        return [Line(policy=policy, state=self._state(version)) for version, policy in self._watched()]

    def _watched(self) -> list[tuple[ModelVersion, LoopPolicy]]:
        """The champions with their policies; one whose bundle cannot be read is said once, and not watched."""
        found = []
        for version in self._champions():
            try:
                found.append((version, self._policy(version)))
            except PlatformError as err:
                if err.code != "bad_bundle":
                    raise
                if version not in self._unreadable:
                    self._unreadable.append(version)
                    said = f"{version.name}:{version.version} is not watched: {err.headline}: {err.detail}"
                    console(stderr=True).print(said, soft_wrap=True, markup=False)
        return found

    def _state(self, version: ModelVersion) -> WatchState:
        try:
            known = self._states.read(version.name)
        except _AWAY:
            known = None
        task = self._hands.champions[version.name][1].task
        return known or WatchState(model=version.name, task=task, since=datetime.now(UTC))

    def _champions(self) -> list[ModelVersion]:
        """The champions of the models that are watched: those that are named, or all.

        Raises:
            PlatformError: ``code="unknown_model"``: one that is named has no champion; ``code="nothing_to_watch"``.
        """
        if self._models:
            return [self._registry.resolve(name) for name in dict.fromkeys(self._models)]
        versions = [version for name in self._registry.names() for version in self._registry.versions(name)]
        found = [version for version in versions if "champion" in version.aliases]
        if not found:
            raise PlatformError(
                "no model to watch: none has a champion", fix="train one: fairlead run TASK", code="nothing_to_watch"
            )
        return found

    def _policy(self, version: ModelVersion) -> LoopPolicy:
        """The policy in the champion's bundle, with what this watch is told; a bundle is read once."""
        known = self._hands.champions.get(version.name)
        if known is None or known[0].version != version.version:
            document = self._registry.document(f"{version.name}:{version.version}")
            self._hands.champions[version.name] = (version, document)
            self._policies[version.name] = _changed(document.loop, self._changes)
        return self._policies[version.name]


def _overrides(given: Sequence[str]) -> dict[str, Any]:
    from pipelines.settings import parse_setting

    settings = dict(parse_setting(item) for item in given)
    if wrong := [key for key in settings if not key.startswith("loop.")]:
        raise PlatformError(
            f"--set {wrong[0]}: not of the loop's policy",
            detail=f"accepted: {', '.join(f'loop.{name}' for name in LoopPolicy.model_fields)}",
            fix=f"for the settings of its runs: --set 'loop.settings={{\"{wrong[0]}\": VALUE}}'",
            code="bad_config",
            key=wrong[0],
        )
    return {key.removeprefix("loop."): value for key, value in settings.items()}


def _changed(policy: LoopPolicy, changes: dict[str, Any]) -> LoopPolicy:
    from pydantic import ValidationError

    try:
        return LoopPolicy.model_validate({**policy.model_dump(), **changes})
    except ValidationError as err:
        lines = [f"loop.{'.'.join(map(str, e['loc']))}: got {e.get('input')!r}; {e['msg']}" for e in err.errors()]
        detail = "\n  ".join(lines)
        raise PlatformError(
            "not a policy of the loop", detail=detail, fix="correct the keys given by --set", code="bad_config"
        ) from err


def _held(lease: Lease) -> PlatformError:
    return PlatformError(
        "another watch acts for these models",
        detail=f"it is {lease.holder}",
        fix="end it, or let it work: fairlead audit",
        code="lease_held",
    )


def as_table(lines: Sequence[Line]) -> Table:
    """The models with their state, the last reason, when a run may start next, and the runs of this week."""
    made = table("model", "state", "why", "next possible (UTC)", "runs", right=("runs",))
    for line in lines:
        state = line.state
        when = "-" if state.next_time is None else f"{state.next_time.astimezone(UTC):%m-%d %H:%M}"
        made.add_row(
            state.model, state.phase, line.error or state.reason, when, f"{line.runs()}/{line.policy.runs_per_week}"
        )
    return made


def _shown(watch: Watch) -> None:
    """A table that changes in place in a terminal; elsewhere a new one when something has changed."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    out = console()
    if out.is_terminal:
        with Live(console=out, auto_refresh=False) as live:
            watch.follow(lambda lines, told: live.update(Group(as_table(lines), Text(told)), refresh=True))
        return
    before: list[Any] = []

    def show(lines: list[Line], told: str) -> None:
        now = [told, *((line.state.phase, line.state.reason, line.error) for line in lines)]
        if now != before:
            before[:] = now
            if lines:
                out.print(as_table(lines))
            if told:
                out.print(told, soft_wrap=True, markup=False)

    watch.follow(show)


def say(profile: str, word: str, model: str, as_json: bool) -> None:
    """Approve the run that the loop asks for, or let a loop that stopped go on; the next pass does it.

    Raises:
        PlatformError: ``code="nothing_to_say"``: the loop of that model waits for nothing of the kind.
    """
    endpoints = load_endpoints(profile)
    states = States(loop_place(endpoints))
    state = states.read(model)
    wanted = {"approve": "asking", "resume": "stopped"}[word]
    if state is None or state.phase != wanted:
        how = f"it is {state.phase}: {state.reason}" if state else "it was never watched"
        raise PlatformError(
            f"the loop of {model} waits for no word to {word}",
            detail=how,
            fix=f"look at it: fairlead watch {model} --once",
            code="nothing_to_say",
        )
    states.say(model, "approve" if word == "approve" else "resume", datetime.now(UTC))
    note(endpoints, word, model, reason=state.reason)
    done = "the run is approved" if word == "approve" else "the loop goes on"
    emit({"model": model, "said": word}, as_json, lambda out: out.print(f"[bold]{model}[/]: {done} at its next pass"))
