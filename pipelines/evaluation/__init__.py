"""Evaluations are found by their problem: a module here of its name, or the one that the problem names."""

from __future__ import annotations

from functools import lru_cache

from contracts.plugins import part_of
from contracts.problems import get_problem
from pipelines.evaluation.base import Evaluation


@lru_cache
def get_evaluation(problem: str) -> Evaluation:
    """The evaluation of a problem.

    Raises:
        PlatformError: ``code="unknown_problem"``, or ``"bad_plugin"`` when its module is not there or has no
            ``EVALUATION``.
    """
    found: Evaluation = part_of(
        get_problem(problem).evaluation or f"{__name__}.{problem}",
        "EVALUATION",
        headline=f"problem {problem!r} cannot be evaluated",
        fix="name a module with EVALUATION in Problem.evaluation, see pipelines/evaluation/base.py",
        code="bad_plugin",
    )
    return found
