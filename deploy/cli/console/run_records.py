"""Records of runs as pages show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.console.documents import Cost, Failure, Link, Run, RunPage, Step

_MOST_FACTS = 14
_LONG = frozenset({"path", "digest", "tracking_url"})


def run_of(record: Mapping[str, Any]) -> Run:
    """One line of the list."""
    asked = _mapping(record.get("asked"))
    result, error = _mapping(record.get("result")), record.get("error")
    name, version = result.get("name"), result.get("version")
    made = f"{name}:{version}" if name and version else f"{result['rows']:,} rows" if _whole(result.get("rows")) else ""
    return Run(
        run_id=str(record.get("run_id", "")),
        status=str(record.get("status", "")),
        task=str(record.get("task") or asked.get("task") or ""),
        recipe=str(record.get("recipe") or asked.get("recipe") or ""),
        workflow=str(record.get("workflow") or asked.get("workflow") or ""),
        started=str(record.get("started") or ""),
        seconds=_number(record.get("seconds")),
        result=made,
        model=str(name) if name and version else "",
        by=str(record.get("by") or ""),
        error=_failure(error).headline if error else "",
    )


def page_of(
    record: Mapping[str, Any],
    needs: Mapping[str, Sequence[str]],
    links: Sequence[Link],
    cost: Mapping[str, Any] | None = None,
) -> RunPage:
    """One run; `needs` says whose output each step takes, `cost` is a document of `pipelines.cost`."""
    asked, error = _mapping(record.get("asked")), record.get("error")
    steps = [_step(str(name), _mapping(step), needs) for name, step in _mapping(record.get("steps")).items()]
    settings = _mapping(record.get("settings") or asked.get("settings"))
    return RunPage(
        run=run_of(record),
        steps=steps,
        finished=str(record.get("finished") or ""),
        source=str(record.get("source") or asked.get("source") or "built-in"),
        settings=[(str(name), str(value)) for name, value in settings.items()],
        error=_failure(error) if error else None,
        cost=_cost(cost) if cost else None,
        links=links,
    )


def _cost(found: Mapping[str, Any]) -> Cost:
    return Cost(
        core_hours=float(found["core_hours"]),
        gib_hours=float(found["gib_hours"]),
        gpu_hours=float(found["gpu_hours"]),
        money=found["money"],
        idle=found["idle_money"],
        currency=found["currency"] or "",
    )


def _step(name: str, step: Mapping[str, Any], needs: Mapping[str, Sequence[str]]) -> Step:
    facts = [
        (str(key), _plain(value))
        for key, value in _mapping(step.get("result")).items()
        if _simple(value) and key not in _LONG
    ]
    tries = step.get("tries")
    return Step(
        name=name,
        status=str(step.get("status", "")),
        seconds=_number(step.get("seconds")),
        tries=int(tries) if tries and _whole(tries) else 1,
        waiting=str(step.get("waiting") or ""),
        needs=needs.get(name, ()),
        facts=facts[:_MOST_FACTS],
    )


def _failure(error: Any) -> Failure:
    if not isinstance(error, dict):
        return Failure(headline=str(error))
    texts = {key: str(error.get(key) or "") for key in ("headline", "detail", "fix")}
    return Failure(**texts)


def _mapping(given: Any) -> dict[Any, Any]:
    return given if isinstance(given, dict) else {}


def _whole(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool)


def _number(given: Any) -> float | None:
    return float(given) if isinstance(given, int | float) and not isinstance(given, bool) else None


def _simple(value: Any) -> bool:
    return isinstance(value, int | float | str | bool) and value != ""


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)[:80]
