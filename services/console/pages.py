"""The pages that only show: models, runs, rollouts, alerts, the audit log."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from services.console.access import CARD_POLICY
from services.console.documents import ModelPage, Version
from services.console.formats import moment
from services.console.rendering import Reader, page
from services.console.source import Source

_RUNS = 200
_AUDIT = 50
_LIVE = 15  # seconds
COMMANDS = ("pause", "resume", "promote", "abort")


def _source(request: Request) -> Source:
    found: Source = request.app.state.source
    return found


def models(request: Request) -> Response:
    """All models, one line each."""
    found = _source(request).models()
    return page(request, "models", {"section": "models", "models": found}, refresh=_LIVE)


def model(request: Request) -> Response:
    """One model."""
    found = _source(request).model(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    values = {
        "section": "models",
        "page": found,
        "measures": measures_of(found.versions),
        "history": history(found),
        "past": past(found),
    }
    return page(request, "model", values, refresh=_LIVE)


def measures_of(versions: object) -> list[str]:
    """The measures that a table of versions has: the primary one, then those that most versions know."""
    known: dict[str, int] = {}
    primary: list[str] = []
    assert isinstance(versions, list | tuple)
    for version in versions:
        if version.primary and version.primary not in primary:
            primary.append(version.primary)
        for name in version.metrics:
            known[name] = known.get(name, 0) + (":" not in name)
    others = sorted((name for name in known if known[name] and name not in primary), key=lambda name: -known[name])
    return [*primary, *others][:6]


def history(found: ModelPage) -> dict[str, object] | None:
    """The primary measure of each version that has it, oldest first, and the limit that the gate puts on it."""
    primary = next((version.primary for version in found.versions if version.primary), "")
    points = [_point(version, primary) for version in reversed(found.versions) if primary in version.metrics]
    limits = [check.limit for version in found.versions for check in version.checks if check.metric == primary]
    return {"metric": primary, "points": points, "limit": limits[0] if limits else None} if points else None


def _point(version: Version, metric: str) -> tuple[str, float, float | None, float | None]:
    low, high = version.intervals.get(metric, (None, None))
    return version.version, version.metrics[metric], low, high


def past(found: ModelPage) -> dict[str, object] | None:
    """The headline measure of each window that has it, oldest first, and what it was in the test."""
    if not found.windows or found.model.live_quality is None:
        return None
    metric = found.model.live_quality.metric
    points: list[tuple[str, float, float | None, float | None]] = []
    for window in found.windows:
        for one in window.measures:
            if one.metric == metric and one.value is not None:
                points.append((_short(window.begin, window.hours), one.value, one.low, one.high))
    references = [one.reference for one in found.windows[-1].measures if one.metric == metric]
    return {"metric": metric, "points": points, "reference": next(iter(references), None)} if points else None


def _short(begin: str, hours: int) -> str:
    """``11-29`` for a day, ``14:00`` for an hour."""
    shown = moment(begin)
    return shown[5:10] if hours >= 24 else shown[11:]


def bundle_file(request: Request) -> Response:
    """A page of a bundle, such as its card; it may run nothing and load nothing."""
    given = request.path_params
    content = _source(request).bundle_file(given["name"], given["version"], given["file"])
    if content is None:
        raise HTTPException(404)
    return Response(content, media_type="text/html", headers={"content-security-policy": CARD_POLICY})


def runs(request: Request) -> Response:
    """The latest runs."""
    found = _source(request).runs(_RUNS)
    return page(request, "runs", {"section": "runs", "runs": found, "most": _RUNS}, refresh=_LIVE)


def run(request: Request) -> Response:
    """One run."""
    found = _source(request).run(request.path_params["run_id"])
    if found is None:
        raise HTTPException(404)
    busy = found.run.status == "running"
    total = sum(step.seconds or 0 for step in found.steps)
    return page(request, "run", {"section": "runs", "page": found, "total": total}, refresh=3 if busy else 0)


def rollouts(request: Request) -> Response:
    """The latest rollout of each model."""
    values = {"section": "rollouts", "rollouts": _source(request).rollouts()}
    return page(request, "rollouts", values, refresh=3)


async def steer(request: Request) -> Response:
    """Pause, resume, promote or abort a rollout, which only an operator may."""
    reader: Reader = request.state.reader
    form = await request.form()
    command, reason = str(form.get("command", "")), str(form.get("reason", "")).strip()
    if not reader.operator or command not in COMMANDS or not reason:
        raise HTTPException(400 if reader.operator else 403)
    asked = _source(request).steer
    await run_in_threadpool(asked, request.path_params["name"], command, f"console:{reader.name}", reason[:500])
    return RedirectResponse("/rollouts", 303)


def alerts(request: Request) -> Response:
    """What is pending or firing."""
    return page(request, "alerts", {"section": "alerts", "alerts": _source(request).alerts()}, refresh=_LIVE)


def audit(request: Request) -> Response:
    """The audit log, newest first."""
    given = request.query_params.get("page", "1")
    number = int(given) if given.isdecimal() and len(given) < 7 else 1
    found = _source(request).audit(max(1, number), _AUDIT)
    last = 1 if found is None else max(1, -(-found.total // _AUDIT))
    return page(request, "audit", {"section": "audit", "log": found, "number": max(1, number), "last": last})
