"""What services add to a problem of `contracts.problems`: one module for each, found by the problem itself."""

from __future__ import annotations

from functools import cache
from typing import Any

from contracts.plugins import part_of
from contracts.problems.base import Problem
from services.problems.base import Serving


@cache
def get_serving(problem: Problem[Any]) -> Serving:
    """The `SERVING` of the module that `problem` names, or of ``services.problems.<name>``.

    Raises:
        PlatformError: ``code="not_servable"``.
    """
    found: Serving = part_of(
        problem.serving or f"{__name__}.{problem.name}",
        "SERVING",
        headline=f"answers of problem {problem.name!r} cannot be served",
        fix="give the problem a module with a SERVING, and name it in Problem.serving",
        code="not_servable",
    )
    return found
