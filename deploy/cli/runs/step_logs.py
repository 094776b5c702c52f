"""The part of a run's output that one step has printed."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.errors import PlatformError

_BEGINS = ('"event": "step_started"', '"event": "step_cached"')


def part_of(log: str, step: str, alone: bool = False) -> str:
    """The lines of one step in a log of several: from where it begins to where the next does.

    With `alone` the whole log is that of one step, and is taken whole where none begins.
    """
    lines, kept, inside, begun = log.splitlines(keepends=True), [], False, False
    for line in lines:
        if any(mark in line for mark in _BEGINS):
            inside = f'"step": "{step}"' in line
            begun = begun or inside
        if inside:
            kept.append(line)
    return "".join(lines if alone and not begun else kept)


def no_step(step: str, steps: Iterable[str]) -> PlatformError:
    """That a run has no such step."""
    return PlatformError(
        f"no step {step!r}", detail=f"the steps: {', '.join(steps)}", fix="name one of them", code="unknown_step"
    )
