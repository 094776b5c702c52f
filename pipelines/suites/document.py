"""A suite as data: one YAML file of tasks, each with items, what is expected of their answers, and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from pydantic import Field, model_validator

from contracts.document import Document
from contracts.errors import PlatformError
from contracts.prompts import content_version, fill, placeholders

_MOST = 10_000  # items of a suite
_OPTIONS = {"temperature": 0, "max_tokens": 64, "seed": 0}


class Message(Document):
    """One message of a conversation."""

    role: str
    content: str


class Item(Document):
    """One request, and what is expected of its answer; a metric says which of these it needs.

    Attributes:
        id: by default the task's name and the item's number.
        language: "en", "zh" or another code; groups of a report.
        prompt: fills ``{prompt}`` of the task's prompt, or is the message itself; or `messages`, a whole conversation.
        variables: what else the task's prompt takes.
        answer: the reference, or several of which the nearest counts.
        choices: what can be chosen, from A; `choice` is the letter of the right one.
        contains, lacks: texts that an answer must have, must not have; letters' case aside.
        pattern: a regular expression that has to be found.
        json_schema: that the answer, as a whole, fulfils as JSON.
        fields: members that the answer's JSON object must have, with their values.
        number: the last number of the answer.
        max_words: of the answer, Chinese characters counted as words.
        refuse: whether the right answer is a refusal.
    """

    id: str = ""
    language: str = ""
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    variables: Mapping[str, str] = Field(default_factory=dict)
    answer: str | tuple[str, ...] | None = None
    choices: tuple[str, ...] = ()
    choice: str | None = None
    contains: tuple[str, ...] | None = None
    lacks: tuple[str, ...] | None = None
    pattern: str | None = None
    json_schema: Mapping[str, Any] | None = None
    fields: Mapping[str, Any] | None = None
    number: float | None = None
    max_words: int | None = Field(None, ge=1)
    refuse: bool | None = None

    @model_validator(mode="after")
    def _fits(self) -> Item:
        if self.messages and self.prompt:
            raise ValueError("give a prompt or messages, not both")
        if self.choice is not None and self.choice not in ascii_uppercase[: len(self.choices)]:
            raise ValueError(f"choice {self.choice!r} is none of the {len(self.choices)} choices")
        return self

    @property
    def references(self) -> tuple[str, ...]:
        """What an answer is compared with."""
        if self.answer is None:
            return ()
        return (self.answer,) if isinstance(self.answer, str) else self.answer


class SuiteTask(Document):
    """Items that are asked and measured alike.

    Attributes:
        metrics: the first one is the task's score.
        prompt: with variables in braces, of which ``prompt`` and ``choices`` come from the item.
        system: the system message; without one the suite's.
        options: of the request, beside and before the suite's.
        file: a JSONL of items beside the suite's file; they come after `items`.
    """

    name: str = Field(pattern=r"^[\w-]+$")
    title: str = ""
    metrics: tuple[str, ...] = Field(min_length=1)
    prompt: str = "{prompt}"
    system: str = ""
    options: Mapping[str, Any] = Field(default_factory=dict)
    items: tuple[Item, ...] = ()
    file: str = ""


class Labelled(Document):
    """Two answers to a prompt, and which of them a person took: "first", "second" or "tie"."""

    prompt: str
    first: str
    second: str
    human: str = Field(pattern="^(first|second|tie)$")


class JudgeTask(Document):
    """What a judging model is asked.

    Attributes:
        criteria: what makes one answer better than another.
        tasks: whose answers are judged; all without a name.
        labelled: pairs by which the judge is measured against people.
    """

    criteria: str
    tasks: tuple[str, ...] = ()
    labelled: tuple[Labelled, ...] = ()


class Suite(Document):
    """A whole suite; its version is of its content, whatever file it came from.

    Attributes:
        system: the system message of conversations that bring none.
        options: of every request; greedy, at most 64 tokens, unless it says more.
        texts: whose likelihood is measured, in bits per byte, where a run asks llama.cpp itself.
    """

    suite: str = Field(pattern=r"^[\w-]+$")
    title: str = ""
    system: str = ""
    options: Mapping[str, Any] = Field(default_factory=dict)
    tasks: tuple[SuiteTask, ...] = Field(min_length=1)
    texts: tuple[str, ...] = ()
    judge: JudgeTask | None = None

    @property
    def version(self) -> str:
        """Twelve hex digits of its content."""
        return content_version(self.model_dump(mode="json"))


class Request(Document):
    """What a model is asked for one item."""

    task: str
    item: Item
    messages: tuple[Message, ...]
    options: Mapping[str, Any]

    @property
    def shown(self) -> str:
        """The conversation without system messages, as one text."""
        return "\n\n".join(one.content for one in self.messages if one.role != "system")


def requests(suite: Suite) -> list[Request]:
    """What is asked, in the order of the suite.

    Raises:
        PlatformError: ``code="bad_suite"``: a prompt has a place without a value.
    """
    made = []
    for task in suite.tasks:
        for item in task.items:
            system = task.system or suite.system
            first = [Message(role="system", content=system)] if system else []
            if item.messages:
                own = [] if item.messages[0].role == "system" else first
                messages = (*own, *item.messages)
            else:
                given = {"prompt": item.prompt, "choices": _listed(item.choices), **item.variables}
                if not item.prompt and "prompt" in placeholders(task.prompt):
                    raise bad_suite(suite.suite, f"task {task.name}, item {item.id} has no prompt")
                try:
                    text = fill(task.prompt, given)
                except PlatformError as err:
                    raise bad_suite(suite.suite, f"task {task.name}, item {item.id}: {err.headline}") from err
                messages = (*first, Message(role="user", content=text))
            options = {**_OPTIONS, **suite.options, **task.options}
            made.append(Request(task=task.name, item=item, messages=messages, options=options))
    return made


def bad_suite(place: str, detail: str) -> PlatformError:
    """A suite that cannot be asked."""
    return PlatformError(
        f"bad suite: {place}",
        detail=detail,
        fix="correct the file; see docs/language.md",
        code="bad_suite",
        suite=place,
    )


def _listed(choices: tuple[str, ...]) -> str:
    return "\n".join(f"{letter}) {text}" for letter, text in zip(ascii_uppercase, choices, strict=False))
