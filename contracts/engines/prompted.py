"""Texts that a chat model behind OpenAI's interface writes by a prompt: nothing is executed here.

The one file of ``model/`` is ``prompted.json`` (`PromptedSpec`). The key, where the address needs one, is in the
environment variable `KEY` and in no file.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from contracts.bundle import Bundle
from contracts.document import Document
from contracts.engine import EngineOptions, EngineSpec, Reason, refused
from contracts.errors import PlatformError
from contracts.problems.generation import GenerationOutput, Written
from contracts.prompts import fill, placeholders
from contracts.texts import join_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE, KEY, TEXT = "prompted.json", "FAIRLEAD_PROMPTED_KEY", "text"


class PromptedSpec(Document):
    """The content of ``prompted.json``.

    Attributes:
        url: of OpenAI's interface, with /v1.  model: its name there.
        prompt, version: of a prompt that `fairlead prompts` keeps; "" of one that was given here.
        template: the user's message, with fields of the row in braces, or {text} for all of them together.
        system: the system message.
        options: of each request, such as temperature and max_tokens.
        max_characters: a source is cut here.  seconds: for one answer.  at_once: requests.
    """

    format: Literal[1] = 1
    url: str = Field(pattern="^https?://")
    model: str = Field(min_length=1)
    prompt: str = ""
    version: str = ""
    template: str = Field(min_length=1)
    system: str = ""
    options: Mapping[str, Any] = Field(default_factory=lambda: {"temperature": 0, "max_tokens": 256})
    max_characters: int = Field(ge=1)
    seconds: float = Field(default=60.0, gt=0)
    at_once: int = Field(default=4, ge=1, le=64)


class PromptedEngine:
    """See `contracts.engine.Engine`. A row without text has an empty answer, and nobody is asked.

    Attributes:
        waits: it asks another service, so a loop of events must not call it.
    """

    waits = True

    def __init__(self, bundle: Bundle) -> None:
        document = bundle.document
        if not isinstance(document.signature.output, GenerationOutput):
            raise refused(bundle, f"engine prompted writes texts, its problem is {document.signature.output.problem}")
        self._longest = document.signature.output.max_characters
        try:
            self.spec = PromptedSpec.model_validate_json((bundle.model_path / FILE).read_bytes())
        except (OSError, ValidationError) as err:
            raise refused(bundle, str(err)) from err
        self._inputs = [item.name for item in document.signature.inputs if item.dtype == "string"]
        if unknown := placeholders(self.spec.template) - {TEXT, *self._inputs}:
            raise refused(bundle, f"the template has {{{sorted(unknown)[0]}}}, which is no field")
        self._pool = ThreadPoolExecutor(self.spec.at_once, thread_name_prefix="prompted")

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.object_]:
        """One text per row.

        Raises:
            PlatformError: ``code="no_answer"``: the address cannot be reached, refuses, or says what is no answer.
        """
        rows = list(zip(*(columns[name] for name in self._inputs), strict=True))
        answers = np.empty(len(rows), dtype=object)
        answers[:] = list(self._pool.map(self._answer, rows))
        return answers

    def _answer(self, fields: Sequence[Any]) -> Written:
        spec = self.spec
        whole = join_fields(fields, spec.max_characters + 1)
        if not whole.strip():
            return Written("")
        each = {
            name: join_fields([value], spec.max_characters) for name, value in zip(self._inputs, fields, strict=True)
        }
        asked = fill(spec.template, {TEXT: whole[: spec.max_characters], **each})
        said, ended = self._ask(asked)
        return Written(
            said[: self._longest],
            truncated=len(whole) > spec.max_characters,
            unfinished=not ended or len(said) > self._longest,
        )

    def _ask(self, message: str) -> tuple[str, bool]:
        """What is said to a message, and whether it came to its end."""
        spec = self.spec
        first = [{"role": "system", "content": spec.system}] if spec.system else []
        body = {"model": spec.model, "messages": [*first, {"role": "user", "content": message}], **spec.options}
        headers = {"content-type": "application/json"}
        if key := os.environ.get(KEY):
            headers["authorization"] = f"Bearer {key}"
        address = spec.url.rstrip("/") + "/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=spec.seconds) as response:
                choice = json.loads(response.read())["choices"][0]
            said = choice["message"]["content"] or ""
            text = join_fields([said], len(said)).strip()
        except urllib.error.HTTPError as err:
            raise self._silent(f"status {err.code}: {err.read()[:300].decode(errors='replace')}") from err
        except (KeyError, IndexError, TypeError, AttributeError) as err:
            raise self._silent("its answer is not in the form of OpenAI's interface") from err
        except (OSError, ValueError) as err:
            raise self._silent(f"{type(err).__name__}: {err}") from err
        return text, choice.get("finish_reason") != "length"

    def _silent(self, detail: str) -> PlatformError:
        return PlatformError(
            f"the chat model {self.spec.model} at {self.spec.url} gives no answer",
            detail=detail,
            fix=f"see that it is served there, or set {KEY}; another address: --set model.url=https://HOST/v1",
            code="no_answer",
        )

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """None: another service answers."""
        raise PlatformError("this model gives no reasons", detail="another service answers", code="not_explainable")


def load(bundle: Bundle, options: EngineOptions) -> PromptedEngine:
    """See `contracts.engines.load_engine`."""
    return PromptedEngine(bundle)


ENGINE = EngineSpec(name="prompted", modality="text", batch_rows=64, load=load, golden=5)
