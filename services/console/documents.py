"""What the pages show, as a source of theirs gives it. None and "" mean: not known, which a page says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts.bundle import Signature


@dataclass(frozen=True, kw_only=True)
class Link:
    """A page elsewhere."""

    label: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Live:
    """Numbers of the traffic.

    Attributes:
        up: whether the endpoint answers; None where nobody knows.
        since_start: the numbers are of the endpoint's whole life, not of the last 5 minutes.
        requests: in all, of the endpoint's life.
        requests_per_second: of the last 5 minutes.
        errors: share of requests answered with 5xx.
        p99_seconds: time of one request in a hundred.
        cost_per_day: of the last hour, at the prices of the monitoring chart; idle_cost_per_day: of that, what is idle.
        objective: share of requests that must not fail; budget_left: share of the month's failures that may still come.
    """

    up: bool | None = None
    since_start: bool = False
    requests: float | None = None
    requests_per_second: float | None = None
    errors: float | None = None
    p99_seconds: float | None = None
    objective: float | None = None
    budget_left: float | None = None
    cost_per_day: float | None = None
    idle_cost_per_day: float | None = None
    currency: str = ""


@dataclass(frozen=True, kw_only=True)
class Release:
    """One installation that serves a model in a cluster: its version, and how many of its pods are ready.

    Attributes:
        version: "" while nobody tells it, as where versions share the traffic.
    """

    name: str
    version: str = ""
    ready: int = 0
    wanted: int = 0
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number with its 95 % interval.

    Attributes:
        part: the slice that it is of; "" for all rows.
        reference: what it was in the test; dropped: whether it is worse than that for certain.
    """

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    part: str = ""
    rows: int | None = None
    reference: float | None = None
    dropped: bool = False


@dataclass(frozen=True, kw_only=True)
class Window:
    """Measures over all labelled rows of a stretch of time."""

    begin: str
    hours: int
    rows: int
    measures: Sequence[Measure]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How a rollout stands.

    Attributes:
        weights: share of the traffic by version, 0 to 1.
        events: what happened, oldest first: (when, what, why).
    """

    model: str
    phase: str
    strategy: str = ""
    champion: str = ""
    challenger: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    started: str = ""
    reason: str = ""
    ended: bool = False
    events: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What the controller does about a model; `next_time` is when a run may start at the earliest."""

    phase: str
    reason: str = ""
    next_time: str = ""
    run: str = ""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """A rule of Prometheus that is pending or firing."""

    name: str
    state: str
    severity: str = ""
    model: str = ""
    summary: str = ""
    description: str = ""
    since: str = ""
    runbook: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """One line of the overview.

    Attributes:
        version: the champion; "" where there is none.  latest: the newest version.
        quality: the champion's primary metric on its test rows.  live_quality: of the same metric, by labels that came.
        drifted: how many of `watched` inputs have changed; None where nobody watches.
        problem: what could not be read.
    """

    name: str
    version: str = ""
    latest: str = ""
    challenger: str = ""
    recipe: str = ""
    created: str = ""
    gate_passed: bool | None = None
    live: Live = Live()
    quality: Measure | None = None
    live_quality: Measure | None = None
    watched: int | None = None
    drifted: int | None = None
    drifted_inputs: Sequence[str] = ()
    rollout: Stage | None = None
    releases: Sequence[Release] = ()
    alerts: int | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A threshold of the gate and what was measured."""

    metric: str
    rule: str
    limit: float
    value: float | None
    passed: bool
    against: str = ""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a model, with what its bundle says.

    Attributes:
        files: pages of the bundle that the console can show.
        problem: why the bundle could not be read; then the fields that come from it are empty.
    """

    version: str
    created: str
    recipe: str
    gate_passed: bool
    aliases: Sequence[str] = ()
    override: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    primary: str = ""
    checks: Sequence[Check] = ()
    compared_with: str = ""
    reasons: Sequence[str] = ()
    data_version: str = ""
    code_version: str = ""
    source: str = ""
    run: str = ""
    digest: str = ""
    path: str = ""
    files: Sequence[str] = ()
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Shares of one input's values; `labels` are categories, or the edges between bins, one more than shares."""

    labels: Sequence[str]
    shares: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How one input, or "(answer)", has changed; `past` is its PSI by time, oldest first."""

    name: str
    kind: str = ""
    detected: bool | None = None
    psi: float | None = None
    js: float | None = None
    missing: float | None = None
    new_categories: float | None = None
    out_of_range: float | None = None
    then: Bars | None = None
    now: Bars | None = None
    past: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, kw_only=True)
class ModelPage:
    """Everything about one model.

    Attributes:
        versions: newest first.  quality: by labels that came; windows: the same over time, oldest first.
        drift_window: the time and rows that `drift` is about.
        endpoint: address of the endpoint that is asked.  signature: the champion's, or the newest version's.
        example: values of its inputs, of a row that it was tested with.
        key_known: whether the endpoint's key is known here, or it is taken to want none.
    """

    model: Model
    versions: Sequence[Version]
    quality: Sequence[Measure] = ()
    windows: Sequence[Window] = ()
    drift: Sequence[Drift] = ()
    drift_window: str = ""
    drift_problem: str = ""
    rollouts: Sequence[Stage] = ()
    loop: Loop | None = None
    alerts: Sequence[Alert] | None = None
    endpoint: str = ""
    signature: Signature | None = None
    example: Mapping[str, Any] = field(default_factory=dict)
    key_known: bool = True
    links: Sequence[Link] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """One line of the list of runs; `result` is ``model:version`` or what was done."""

    run_id: str
    status: str
    task: str = ""
    recipe: str = ""
    workflow: str = ""
    started: str = ""
    seconds: float | None = None
    result: str = ""
    model: str = ""
    by: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a run; `needs` names the steps whose output it takes, `facts` are the numbers that it gave."""

    name: str
    status: str
    seconds: float | None = None
    tries: int = 1
    waiting: str = ""
    needs: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why something failed and what mends it."""

    headline: str
    detail: str = ""
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run cost: hours that were held for it, and money at the prices of the profile of today.

    Attributes:
        money: None without prices.  idle: of that, for what was asked for and not used.
    """

    core_hours: float
    gib_hours: float
    gpu_hours: float = 0.0
    money: float | None = None
    idle: float | None = None
    currency: str = ""


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """Everything about one run; `cost` is that of one that has ended."""

    run: Run
    steps: Sequence[Step]
    finished: str = ""
    source: str = ""
    settings: Sequence[tuple[str, str]] = ()
    error: Failure | None = None
    cost: Cost | None = None
    links: Sequence[Link] = ()


@dataclass(frozen=True, kw_only=True)
class AuditLine:
    """One entry of the audit log."""

    sequence: int
    time: str
    actor: str
    action: str
    subject: str
    reason: str = ""
    evidence: str = ""


@dataclass(frozen=True, kw_only=True)
class AuditPage:
    """Entries, newest first; `intact` is False where the chain of hashes is broken, at entry `broken`."""

    entries: Sequence[AuditLine]
    total: int
    intact: bool | None = None
    broken: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an endpoint said to one request; `errors` are (field, message), `headline` and `fix` of a refusal."""

    status: int
    milliseconds: float = 0.0
    version: str = ""
    prediction: Mapping[str, Any] = field(default_factory=dict)
    headline: str = ""
    detail: str = ""
    fix: str = ""
    errors: Sequence[tuple[str, str]] = ()
