"""A prompt tried on its examples: measured, and compared with the champion's words on the same ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contracts.prompts import PromptDocument, PromptVersion
from pipelines.suites.asking import Asker, KeptAnswers, ask_all
from pipelines.suites.document import Suite, requests
from pipelines.suites.loading import parse_suite
from pipelines.suites.scores import SCORE, Scores, paired, spent

_TASK = "examples"


def suite_of(prompt: PromptDocument, worded: PromptDocument | None = None) -> Suite:
    """The suite of a prompt's examples; asked in the words of another version, `worded`.

    Raises:
        PlatformError: ``code="bad_suite"``: an example lacks a variable, or what a metric needs.
    """
    words = worded or prompt
    task = {"name": _TASK, "metrics": prompt.metrics, "prompt": words.template, "items": prompt.examples}
    document = {"suite": prompt.name, "system": words.system, "options": words.options, "tasks": [task]}
    return parse_suite(document, f"the examples of prompt {prompt.name}")


def try_prompt(
    prompt: PromptDocument,
    champion: PromptVersion | None,
    asker: Asker,
    kept: KeptAnswers,
    at_once: int,
    tell: Callable[[bool], None] = lambda cached: None,
) -> dict[str, Any]:
    """The evidence: the first metric with its interval, and the paired difference from the champion.

    It passes with at least its `minimum`, unless it is shown to be worse than the champion in the same model. A
    champion whose variables the examples do not have is not compared; ``not_compared`` says so.

    Raises:
        PlatformError: the model does not answer; what it has answered is kept.
    """
    suite = suite_of(prompt)
    asked = requests(suite)
    answers = ask_all(asker, asked, kept, at_once, tell)
    scores = Scores(suite, asked, answers)
    found = scores.document()
    against, why = None, ""
    if champion is not None and champion.version != prompt.version:
        if set(champion.document.variables) <= set(prompt.variables):
            other = requests(suite_of(prompt, champion.document))
            theirs = Scores(suite, other, ask_all(asker, other, kept, at_once))
            against = {"version": champion.version, **paired(scores, theirs)[SCORE]}
        else:
            why = f"the champion {champion.version} has other variables"
    value = found["metrics"][SCORE]
    return {
        "passed": value >= prompt.minimum and (against is None or against["shown"] != "worse"),
        "metric": prompt.metrics[0],
        "value": value,
        "interval": found["intervals"].get(SCORE),
        "metrics": {name.removeprefix(f"{_TASK}."): one for name, one in found["metrics"].items() if name != SCORE},
        "minimum": prompt.minimum,
        "model": asker.name,
        "identity": asker.identity,
        "against": against,
        "not_compared": why,
        "spent": spent(answers),
        "rows": [
            {"id": request.item.id, "answer": answer.text, "error": answer.error, "value": round(float(one), 4)}
            for request, answer, one in zip(asked, answers, scores.primary, strict=True)
        ],
    }
