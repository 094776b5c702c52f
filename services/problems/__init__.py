"""What services add to a problem of `contracts.problems`: one module for each, found by the problem itself."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from contracts.errors import PlatformError
from contracts.problems.base import Problem
from services.problems.base import Serving


@cache
def get_serving(problem: Problem[Any]) -> Serving:
    """The `SERVING` of the module that `problem` names, or of ``services.problems.<name>``.

    Raises:
        PlatformError: ``code="not_servable"``.
    """
    module = problem.serving or f"{__name__}.{problem.name}"
    try:
        found: Serving = import_module(module).SERVING
    except (ImportError, AttributeError) as err:
        raise PlatformError(
            f"answers of problem {problem.name!r} cannot be served",
            detail=f"{module}: {err}",
            fix="give the problem a module with a SERVING, and name it in Problem.serving",
            code="not_servable",
        ) from err
    return found
