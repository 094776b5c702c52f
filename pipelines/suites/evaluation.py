"""The evaluation of models by a suite: asked, measured, compared in pairs, judged; one document, the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from contracts.prompts import content_version
from pipelines.suites.asking import Answer, Asker, InProcess, KeptAnswers, ask_all
from pipelines.suites.document import Request, Suite, requests
from pipelines.suites.judge import Judge, agreement, combined, judged_pairs, summary
from pipelines.suites.scores import Scores, paired, rows_of, spent

REFERENCE = "reference"
Tell = Callable[[str, int, int], None]  # tell(what is done, done, total)


def evaluate_suite(
    suite: Suite,
    askers: Sequence[Asker],
    kept: KeptAnswers,
    *,
    at_once: int = 4,
    judge: Asker | None = None,
    tell: Tell = lambda doing, done, total: None,
) -> dict[str, Any]:
    """Ask each model each item, and measure; the first model is what the others are compared with.

    Args:
        askers: the models.
        kept: where answers are kept; what is there is not asked again.
        at_once: requests that a model is asked together.
        judge: who judges answers by ``suite.judge``; two models' against each other, one model's against references.
        tell: hears how far it is.

    Returns:
        The document: ``suite``, ``models`` (metrics, intervals, what was spent), ``paired`` (each later model against
        the first), ``judge`` (None without one) and ``rows`` (each item with all answers and their values).

    Raises:
        PlatformError: a model, or the judge, does not answer; what was answered is kept.
    """
    asked = requests(suite)
    answers = [ask_all(asker, asked, kept, at_once, _counted(tell, asker.name, len(asked))) for asker in askers]
    scores = [Scores(suite, asked, each) for each in answers]
    models = [
        {"name": asker.name, "identity": asker.identity, **one.document(), "spent": spent(each)}
        for asker, each, one in zip(askers, answers, scores, strict=True)
    ]
    document: dict[str, Any] = {
        "suite": about(suite),
        "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "models": models,
        "paired": [
            {"model": asker.name, "against": askers[0].name, **paired(one, scores[0])}
            for asker, one in zip(askers[1:], scores[1:], strict=True)
        ],
        "judge": None,
        "rows": _rows(asked, answers, scores),
    }
    if judge is not None and suite.judge is not None:
        document["judge"] = _judged(
            suite, asked, askers, answers, Judge(judge, suite.judge, kept, at_once), tell, document
        )
    return {"id": content_version([document["suite"]["version"], *(one.identity for one in askers)]), **document}


def about(suite: Suite) -> dict[str, Any]:
    """What a suite is, without its items."""
    return {
        "name": suite.suite,
        "title": suite.title,
        "version": suite.version,
        "items": sum(len(task.items) for task in suite.tasks),
        "tasks": {task.name: {"items": len(task.items), "metrics": list(task.metrics)} for task in suite.tasks},
    }


def evidence_of(suite: Suite, asker: InProcess, tell: Tell) -> dict[str, Any]:
    """What a bundle keeps of a suite that its model was asked in its own run: metrics, intervals and first metrics.

    ``bits_per_byte`` is of the suite's texts, None where the engine gives no probabilities.
    """
    asked = requests(suite)
    answers = ask_all(asker, asked, KeptAnswers(None), 1, _counted(tell, asker.name, len(asked)))
    scores = Scores(suite, asked, answers)
    rows = [
        {"id": request.item.id, "task": request.task, "answer": answer.text, "value": round(float(value), 4)}
        for request, answer, value in zip(asked, answers, scores.primary, strict=True)
    ]
    bits = asker.bits_per_byte(suite.texts)
    return {"suite": about(suite), **scores.document(), "bits_per_byte": bits, "spent": spent(answers), "rows": rows}


def _rows(
    asked: Sequence[Request], answers: Sequence[Sequence[Answer]], scores: Sequence[Scores]
) -> list[dict[str, Any]]:
    values = [rows_of(one.values) for one in scores]
    return [
        {
            "id": request.item.id,
            "task": request.task,
            "language": request.item.language,
            "prompt": request.shown,
            "expected": _expected(request),
            "answers": [
                {"text": each[at].text, "error": each[at].error, "values": values[model][at]}
                for model, each in enumerate(answers)
            ],
        }
        for at, request in enumerate(asked)
    ]


def _expected(request: Request) -> dict[str, Any]:
    """What the item expects, for people to read."""
    given = request.item.model_dump(exclude_none=True, exclude={"id", "language", "prompt", "messages", "variables"})
    return {name: value for name, value in given.items() if value not in ((), {})}


def _judged(
    suite: Suite,
    asked: Sequence[Request],
    askers: Sequence[Asker],
    answers: Sequence[Sequence[Answer]],
    judge: Judge,
    tell: Tell,
    document: Mapping[str, Any],
) -> dict[str, Any]:
    """The judge's document; its verdicts are also written beside the answers in ``document["rows"]``."""
    task = suite.judge
    assert task is not None
    found: dict[str, Any] = {"name": judge.name, "criteria": task.criteria, "human": None, "comparisons": []}
    if task.labelled:
        pairs = [(one.prompt, one.first, one.second) for one in task.labelled]
        verdicts = judge.compare(pairs, _counted(tell, "judge, labelled pairs", 2 * len(pairs)))
        found["human"] = {**agreement(verdicts, [one.human for one in task.labelled]), **_bias(verdicts)}
    matches: list[tuple[int, int | None]] = [(at, 0) for at in range(1, len(askers))] or [(0, None)]
    for one, other in matches:
        pairs_at = judged_pairs(asked, answers[one], None if other is None else answers[other], task.tasks)
        if not pairs_at:
            continue
        doing = f"judge, {askers[one].name}"
        verdicts = judge.compare([pair for _, pair in pairs_at], _counted(tell, doing, 2 * len(pairs_at)))
        against = REFERENCE if other is None else askers[other].name
        found["comparisons"].append({"model": askers[one].name, "against": against, **summary(verdicts)})
        for (at, _), both in zip(pairs_at, verdicts, strict=True):
            said = {"first": "better", "second": "worse", "tie": "tie"}[combined(both)]
            document["rows"][at]["answers"][one]["judged"] = said if both[0] == both[1] else f"{said}, by its place"
    return found


def _bias(verdicts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {name: summary(verdicts)[name] for name in ("consistent", "position_bias", "unreadable")}


def _counted(tell: Tell, doing: str, total: int) -> Callable[[bool], None]:
    done = 0

    def count(cached: bool) -> None:
        nonlocal done
        done += 1  # of threads; only shown
        tell(doing, done, total)

    return count
