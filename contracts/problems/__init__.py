"""Problems are discovered, not listed: every module here with a ``PROBLEM``, and those that other packages add."""

from __future__ import annotations

from typing import Any

from contracts.plugins import Rooms
from contracts.problems.base import Output, Problem

PROBLEMS = Rooms("problem", "contracts.problems", "PROBLEM")
OURS = (
    "classification",
    "multilabel",
    "regression",
    "embedding",
    "generation",
    "ranking",
    "detection",
    "tagging",
    "image",
    "answering",
)  # described in bundle.schema.json


def get_problem(name: str) -> Problem[Any]:
    """The problem called `name`.

    Raises:
        PlatformError: ``code="unknown_problem"`` or ``"bad_plugin"``, see `contracts.plugins.Rooms.get`.
    """
    found: Problem[Any] = PROBLEMS.get(name)
    return found


def read_output(value: Any) -> Output:
    """The output part of a signature, told apart by its ``problem``.

    Raises:
        ValueError: it has no problem, or one that nobody here knows; pydantic's ValidationError is one as well.
    """
    from contracts.errors import PlatformError

    if isinstance(value, Output):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("problem"), str):
        raise ValueError('expected an object with "problem"')
    try:
        problem = get_problem(value["problem"])
    except PlatformError as err:
        raise ValueError(f"{err.headline}: {err.detail}; {err.fix}") from err
    return problem.output.model_validate(value)
