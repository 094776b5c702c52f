"""The chat model that writes answers from passages, asked in a run as the service of the model would ask it.

It answers the test questions that the index answers, once and greedily; what it has answered is kept until it has
answered all, so that a run which was stopped goes on.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from contracts.prompts import content_version
from contracts.written_answers import CHARACTERS, PASSAGES, TOKENS, messages, written
from pipelines.io.files import user_cache
from pipelines.task import STRICT, Progress

if TYPE_CHECKING:
    import pandas as pd

    from contracts.problems.answering import Answered
    from pipelines.evaluation.written import Said
    from pipelines.suites.asking import Answer
    from pipelines.suites.document import Request

KEY = "FAIRLEAD_WRITER_KEY"
_SAMPLES = 8  # of the card
_OF = "writer"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WriterConfig:
    """The chat model that the service is to have as its ``writer``: the run lets it answer the test questions.

    url: of a service with OpenAI's interface; "": answers are only quoted. The key, if it needs one, is in the variable
    FAIRLEAD_WRITER_KEY, where the step evaluate runs.
    model: its name there; "" is the first one.
    max_tokens, passages, passage_characters: of an answer, and what the model reads, as in the service's settings.
    seconds: for one question, with all tries.  at_once: questions.
    cache: folder for what it has answered until it has answered all; "" is one in the user's cache.
    """

    url: str = ""
    model: str = ""
    max_tokens: Annotated[int, Field(ge=1, le=8192)] = TOKENS
    passages: Annotated[int, Field(ge=1, le=50)] = PASSAGES
    passage_characters: Annotated[int, Field(ge=100)] = CHARACTERS
    seconds: Annotated[float, Field(gt=0)] = 60.0
    at_once: Annotated[int, Field(ge=1, le=64)] = 4
    cache: str = ""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("no address: it begins with http:// or https://")
        if parts.username is not None or parts.query:
            raise ValueError(f"an address has no password or key in it: {KEY} has it")
        return url


def let_write(
    frame: pd.DataFrame, answers: Any, config: Any, progress: Progress
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The test rows with what the chat model wrote, as `pipelines.evaluation.written.COLUMN`; and ``writer`` of
    evaluation.json. Without a chat model the rows are as they were.

    Args:
        answers: the quoted ones.
        config: a recipe's; its `writer` is a `WriterConfig`, where it has one.

    Raises:
        PlatformError: ``code="no_writer"``: it is away, refuses, or what it says is no answer.
    """
    writer = getattr(config, _OF, None)
    if not isinstance(writer, WriterConfig) or not writer.url:
        return frame, {}
    from pipelines.evaluation.written import COLUMN

    questions = [str(one) for one in frame["question"]]
    asked = [at for at, one in enumerate(answers) if one.found]
    requests = [_request(writer, questions[at], answers[at], config.seed) for at in asked]
    name, found = _answers(writer, requests, progress)
    said = {at: _said(writer, questions[at], answers[at], one) for at, one in zip(asked, found, strict=True)}
    rows = [said[at].json() if at in said else "" for at in range(len(frame))]
    seconds = sorted(one.seconds for one in found)
    about = {
        "url": writer.url, "model": name, "asked": len(asked), "rows": len(frame),
        "seconds": seconds[len(seconds) // 2] if seconds else None,
        "why": {why: sum(one.why == why for one in said.values()) for why in sorted({o.why for o in said.values()})},
        "samples": _samples(frame, questions, answers, said),
    }  # fmt: skip
    return frame.assign(**{COLUMN: rows}), {_OF: about}


def _request(writer: WriterConfig, question: str, quoted: Answered, seed: int) -> Request:
    """What the service asks, but for the marks: a document cannot have the number that is made of its own text."""
    from pipelines.suites.document import Item, Message, Request

    read = quoted.passages[: writer.passages]
    own = "\0".join([str(seed), question, *(one.text for one in read)])
    number = hashlib.sha256(own.encode("utf-8", "replace")).hexdigest()[:16]
    asked = messages(question, read, writer.passage_characters, number)
    return Request(
        task=_OF,
        item=Item(id=number),
        messages=tuple(Message(**one) for one in asked),
        options={"temperature": 0, "max_tokens": writer.max_tokens, "seed": seed},
    )


def _answers(writer: WriterConfig, requests: Sequence[Request], progress: Progress) -> tuple[str, list[Answer]]:
    """The model's name, and its answers in the order of the requests."""
    import shutil

    from pipelines.suites.asking import Endpoint, KeptAnswers, ask_all

    folder = _folder(writer, requests)
    done = itertools.count(1)
    try:
        endpoint = Endpoint(writer.url, os.environ.get(KEY, ""), writer.model, deadline=writer.seconds)
        found = ask_all(
            endpoint, requests, KeptAnswers(folder), writer.at_once,
            lambda cached: progress(next(done), len(requests), doing=_OF),
        )  # fmt: skip
    except PlatformError as err:
        raise PlatformError(
            f"the chat model at {writer.url} does not write the answers to the test questions",
            detail="; ".join(filter(None, [err.headline, err.detail])),
            fix=f"see that it is served there, such as by: fairlead serve chat; or set {KEY}, or writer.model; or "
            "leave writer.url out. What it has answered is kept: the same command goes on",
            code="no_writer",
        ) from err
    shutil.rmtree(folder, ignore_errors=True)  # another model may have this name by the next run
    return endpoint.model, found


def _folder(writer: WriterConfig, requests: Sequence[Request]) -> Path:
    home = Path(writer.cache).expanduser() if writer.cache else user_cache("writers")
    asked = [[each.model_dump() for each in one.messages] for one in requests]
    name = content_version({"url": writer.url, "model": writer.model, "asked": asked})
    return home / name


def _said(writer: WriterConfig, question: str, quoted: Answered, answer: Answer) -> Said:
    from pipelines.evaluation.written import FAILED, Said

    if answer.error:
        return Said("", FAILED, quoted.text, writer.passages)
    read = quoted.passages[: writer.passages]
    taken, why = written(answer.text, question, quoted, read)
    return Said(answer.text, why, taken.text, writer.passages)


def _samples(
    frame: pd.DataFrame, questions: Sequence[str], answers: Any, said: dict[int, Said]
) -> list[dict[str, str]]:
    """Some questions with the wanted answer, the quoted one and the written one, from the least alike to the most."""
    from contracts.written_answers import uncited
    from pipelines.evaluation.answering import Wanted
    from pipelines.evaluation.parts import spread_rows
    from pipelines.evaluation.text_measures import token_f1

    places = list(said)
    wanted = [Wanted.read(frame["label"].iloc[at]).answer for at in places]
    alike = [token_f1(uncited(said[at].text), answer) for at, answer in zip(places, wanted, strict=True)]
    chosen = sorted(spread_rows(alike, _SAMPLES).tolist(), key=lambda at: alike[at]) if places else []
    return [
        {
            "question": questions[places[at]],
            "wanted": wanted[at],
            "quoted": answers[places[at]].text,
            "written": said[places[at]].text,
            "why": said[places[at]].why,
        }
        for at in chosen
    ]
