"""Answers of a teacher, a model behind OpenAI's interface; kept, so that nothing is asked twice.

An answer is kept under what was asked: model, system message, prompt and limits. A run that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.io.files import user_cache
from pipelines.task import STRICT

KEY = "FAIRLEAD_TEACHER_KEY"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TeacherConfig:
    """Who answers in the place of the data's own answers.

    url: of OpenAI's interface, with /v1; the key, if it needs one, is in the variable FAIRLEAD_TEACHER_KEY.
    model: its name there.  licence: under which its answers may be trained on; it is noted with the model.
    system: the message that it gets; "" is that of the model that is tuned.  max_tokens: of an answer.
    at_once: requests.  cache: folder for what it has answered; "" is one in the user's cache.
    """

    url: str = ""
    model: str = ""
    licence: str = ""
    system: str = ""
    max_tokens: Annotated[int, Field(ge=1)] = 256
    at_once: Annotated[int, Field(ge=1, le=64)] = 4
    cache: str = ""


def check_teacher(teacher: TeacherConfig) -> None:
    """Refuse a teacher that is not named whole.

    Raises:
        PlatformError: ``code="bad_config"``.
    """
    for name in ("url", "model", "licence"):
        if not getattr(teacher, name):
            raise PlatformError(
                f"the recipe distill has no teacher.{name}",
                detail="it learns from the answers of a model behind OpenAI's interface, whose terms must allow that",
                fix="--set teacher.url=https://HOST/v1 --set teacher.model=NAME --set teacher.licence=TERMS",
                code="bad_config",
            )


def answers_of(
    teacher: TeacherConfig, prompts: Sequence[str], system: str, told: Callable[[int, int], None]
) -> list[str]:
    """What the teacher says to each prompt, asked or kept.

    Raises:
        PlatformError: ``code="no_teacher"``: it cannot be reached or refuses; ``code="bad_answer"``: it says nothing.
    """
    check_teacher(teacher)
    kept = Kept.of(teacher)
    asked = [_body(teacher, prompt, teacher.system or system) for prompt in prompts]
    wanted = [body for body in {kept.key(body): body for body in asked}.values() if kept.answer(body) is None]
    done = len(asked) - len(wanted)
    told(done, len(asked))
    pool = ThreadPoolExecutor(teacher.at_once)
    try:
        work = {pool.submit(_ask, teacher, body): body for body in wanted}
        for each in as_completed(work):
            kept.add(work[each], each.result())
            done += 1
            told(done, len(asked))
    finally:
        pool.shutdown(cancel_futures=True)
    return [str(kept.answer(body)) for body in asked]


class Kept:
    """What a teacher has answered: a file with one JSON document a line, only ever added to."""

    def __init__(self, file: Path) -> None:
        self._file, self._answers = file, dict[str, str]()
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            for line in file.read_bytes().splitlines():
                try:  # the last line of a run that was killed may be cut
                    found = json.loads(line)
                    self._answers[found["key"]] = found["answer"]
                except (ValueError, KeyError, TypeError):
                    continue

    @classmethod
    def of(cls, teacher: TeacherConfig) -> Kept:
        """Those of one address and model."""
        folder = Path(teacher.cache).expanduser() if teacher.cache else user_cache("teachers")
        name = hashlib.sha256(f"{teacher.url}\0{teacher.model}".encode()).hexdigest()[:16]
        return cls(folder / f"{name}.jsonl")

    @staticmethod
    def key(body: dict[str, Any]) -> str:
        """What an answer is kept under."""
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def answer(self, body: dict[str, Any]) -> str | None:
        """The answer to a request, if it is here."""
        return self._answers.get(self.key(body))

    def add(self, body: dict[str, Any], answer: str) -> None:
        """Keep one."""
        key = self.key(body)
        with self._file.open("ab") as stream:
            stream.write(b"\n" if self._cut() else b"")
            stream.write(json.dumps({"key": key, "answer": answer}, ensure_ascii=False).encode() + b"\n")
        self._answers[key] = answer

    def _cut(self) -> bool:
        """Whether the last line has no end."""
        with self._file.open("rb") as stream:
            if not stream.seek(0, os.SEEK_END):
                return False
            stream.seek(-1, os.SEEK_END)
            return stream.read() != b"\n"


def _body(teacher: TeacherConfig, prompt: str, system: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    return {"model": teacher.model, "messages": messages, "max_tokens": teacher.max_tokens, "temperature": 0}


def _ask(teacher: TeacherConfig, body: dict[str, Any]) -> str:
    headers = {"content-type": "application/json"}
    if key := os.environ.get(KEY):
        headers["authorization"] = f"Bearer {key}"
    address = teacher.url.rstrip("/") + "/chat/completions"
    if not address.startswith(("http://", "https://")):
        raise _unreachable(teacher, "the address does not begin with http:// or https://")
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            document = json.loads(response.read())
    except urllib.error.HTTPError as err:
        raise _unreachable(teacher, f"status {err.code}: {err.read()[:300].decode(errors='replace')}") from err
    except (OSError, ValueError) as err:
        raise _unreachable(teacher, f"{type(err).__name__}: {err}") from err
    try:
        text: str = (document["choices"][0]["message"]["content"] or "").strip()
    except (KeyError, IndexError, TypeError, AttributeError) as err:
        raise _unreachable(teacher, "its answer is not in the form of OpenAI's interface") from err
    if not text:
        asked = body["messages"][-1]["content"]
        raise PlatformError(
            "the teacher answered a prompt with nothing",
            detail=f"prompt: {asked[:200]!r}",
            fix="leave the row out, or raise --set teacher.max_tokens=512",
            code="bad_answer",
        )
    return text


def _unreachable(teacher: TeacherConfig, detail: str) -> PlatformError:
    return PlatformError(
        f"the teacher {teacher.model} at {teacher.url} gives no answers",
        detail=detail,
        fix=f"correct teacher.url or teacher.model, or set {KEY}; what was answered is kept",
        code="no_teacher",
    )
