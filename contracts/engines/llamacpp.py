"""Chat models in llama.cpp: weights in one GGUF file, executed in a process of their own; or in vLLM, at an address.

The files of ``model/``: ``model.gguf`` and ``chat.json`` (`ChatSpec`); of a tuned model perhaps ``adapter/``, which
changes the weights; perhaps ``safetensors/``, the same model, adapter included, as vLLM reads it. Rows are answered by
greedy decoding: as the only message of a conversation, or, by a template of the model's own, as a message of several
inputs, or as a text that is continued.
"""

from __future__ import annotations

import importlib.util
import math
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from contracts.bundle import Bundle, sha256_file
from contracts.document import Document
from contracts.engine import EngineOptions, EngineSpec, Reason, refused
from contracts.errors import PlatformError
from contracts.llama_process import LlamaOptions, LlamaProcess
from contracts.problems.generation import Written
from contracts.prompts import fill
from contracts.remote_engine import SAFETENSORS, RemoteEngine, served_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC, WEIGHTS = "chat.json", "model.gguf"
ADAPTER = "adapter"  # folder with matrices of low rank: adapter.gguf, and adapter_model.safetensors as peft has them


class ChatSpec(Document):
    """The content of ``chat.json``.

    Attributes:
        system: the system message of conversations that bring none; "" leaves it to the model's template.
        window: tokens of a conversation, prompt and answer together.
        max_tokens: of the answer to a row.
        max_characters: the answer to a row is cut here.
        prompt: what is said to the model of a row, with names of inputs in braces; "" is the first input. Where it
            comes to nothing, the text is continued that the input `begins` holds.
        begins: the input that an answer goes on from; "" for none.
        adapter: sha256 of the weights that the adapter in ``adapter/`` belongs to; "" without one.
    """

    format: Literal[1] = 1
    system: str = ""
    window: int = Field(ge=64)
    max_tokens: int = Field(ge=1)
    max_characters: int = Field(ge=1)
    prompt: str = ""
    begins: str = ""
    adapter: str = ""


class LlamaEngine:
    """See `contracts.engine.Engine`; conversations of several rows are continued together.

    Attributes:
        spec: how it was built to answer.
        options: of the process.
        process: where conversations of any form are answered.
        window, slots: of the process.
        guarded: its service looks at texts by `contracts.guard_rules`.
    """

    guarded = True

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        try:
            self.spec = ChatSpec.model_validate_json((bundle.model_path / SPEC).read_bytes())
        except (OSError, ValidationError) as err:
            raise refused(bundle, str(err)) from err
        self.slots, self._input = options.slots, bundle.document.signature.inputs[0].name
        self.process: LlamaProcess | RemoteEngine
        if options.url:
            self.process = self._remote(bundle, options)
            longest = int(self.process.info["n_ctx"]) or self.spec.window
            self.window = min(options.window or longest, longest)
            return
        if importlib.util.find_spec("xllamacpp") is None:
            raise ImportError("xllamacpp is not installed", name="xllamacpp")
        adapter = self._adapter(bundle)
        self.options = LlamaOptions(
            model=str(bundle.model_path / WEIGHTS),
            window=options.window or self.spec.window,
            slots=self.slots,
            threads=options.threads,
            name=bundle.document.name,
            adapters=(adapter,) if adapter else (),
        )
        self.process = LlamaProcess(self.options)
        self.window = int(self.process.info["n_ctx"])  # rounded up
        weakref.finalize(self, self.process.stop)

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.object_]:
        """The answer to each row, as the only message of a conversation.

        Raises:
            PlatformError: llama.cpp has ended, or refuses a row, for example as too long.
        """
        given = [{name: str(columns[name][at]) for name in columns} for at in range(len(columns[self._input]))]
        with ThreadPoolExecutor(max(1, min(self.slots, len(given)))) as pool:
            answers = list(pool.map(self._write if self.spec.prompt or self.spec.begins else self._answer, given))
        found: NDArray[np.object_] = np.empty(len(answers), dtype=object)
        found[:] = answers
        return found

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """The bits that the model needs for a byte of these texts, NaN where there is none; less is better.

        Unlike perplexity by token, models of different vocabularies can be compared by it.
        """
        assert isinstance(self.process, LlamaProcess)
        found = [self.process.log_likelihood(text) for text in texts]
        size = sum(length for _, length in found)
        return -sum(value for value, _ in found) / math.log(2) / size if size else math.nan

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """None: to read a conversation again without each of its parts takes as long as many answers."""
        detail = "an answer takes seconds, and would be read again without each part of the conversation"
        raise PlatformError("this model gives no reasons", detail=detail, code="not_explainable")

    def _remote(self, bundle: Bundle, options: EngineOptions) -> RemoteEngine:
        """vLLM, with the weights that are in the bundle for it."""
        if not (bundle.model_path / SAFETENSORS / "config.json").is_file():
            raise PlatformError(
                f"{bundle.document.name} has no weights that vLLM reads",
                detail=f"model/{SAFETENSORS} is not in the bundle",
                fix="run the task again with --set model.safetensors=true; where its recipe has no such setting, "
                "serve it by llama.cpp: engine.kind of the chart is llamacpp",
                code="bad_bundle",
            )
        served = options.served or served_name(bundle.document.name, bundle.digest)
        return RemoteEngine(options.url, served, key=options.key, wait=options.wait)

    def _adapter(self, bundle: Bundle) -> str:
        """The file of the adapter that is part of the model; "" without one."""
        if not self.spec.adapter:
            return ""
        found = base_of(bundle)
        if found != self.spec.adapter:
            raise refused(bundle, f"its adapter is of weights {self.spec.adapter[:12]}, and {WEIGHTS} is {found[:12]}")
        return str(bundle.model_path / ADAPTER / "adapter.gguf")

    def _write(self, row: Mapping[str, str]) -> str:
        """An answer that goes on from its beginning; without a message, what follows as much of it as is seen."""
        said, begins = fill(self.spec.prompt, row).strip(), row.get(self.spec.begins, "")
        text = ""
        if said:
            messages = opened([{"role": "user", "content": said}], self.spec.system)
            text = self.process.call("POST", "/apply-template", {"messages": messages})["prompt"]
        prompt: Any = text + begins
        room = self.window - self.spec.max_tokens
        if not said and len(begins.encode()) >= room:  # a token is a byte at least
            prompt = self.process.call("POST", "/tokenize", {"content": begins, "add_special": True})["tokens"]
            prompt = prompt[-room:] if room > 0 else prompt
        greedy = {"temperature": 0, "seed": 0, "n_predict": self.spec.max_tokens}
        answer = self.process.call("POST", "/completion", {"prompt": prompt, **greedy})
        found = whole(answer.get("content") or "", answer.get("stop_type") == "limit")
        found = (found.strip() if said and not begins else found.rstrip())[: self.spec.max_characters]
        return Written(found, tokens=answer.get("tokens_predicted") or 0)

    def _answer(self, row: Mapping[str, str]) -> str:
        asked = {"messages": opened([{"role": "user", "content": row[self._input]}], self.spec.system)}
        greedy = {"temperature": 0, "seed": 0, "max_tokens": self.spec.max_tokens}
        answer = self.process.call("POST", "/v1/chat/completions", {**asked, **greedy})
        choice = answer["choices"][0]
        text = whole(choice["message"].get("content") or "", choice.get("finish_reason") == "length")
        tokens = (answer.get("usage") or {}).get("completion_tokens") or 0
        return Written(text.strip()[: self.spec.max_characters], tokens=tokens)


def whole(text: str, cut: bool) -> str:
    """An answer that is `cut` at its limit of tokens, without the half of a character that it may end with."""
    return text.rstrip("\ufffd") if cut else text


def base_of(bundle: Bundle) -> str:
    """What adapters are over: sha256 of the weights."""
    listed = bundle.document.files.get(f"model/{WEIGHTS}")  # nothing is listed before it is published
    return listed or sha256_file(bundle.model_path / WEIGHTS)


def opened(messages: Sequence[Mapping[str, Any]], system: str) -> list[Mapping[str, Any]]:
    """The messages, with `system` before them where they begin without a system message."""
    has_own = bool(messages) and messages[0]["role"] == "system"
    return list(messages) if has_own or not system else [{"role": "system", "content": system}, *messages]


def load(bundle: Bundle, options: EngineOptions) -> LlamaEngine:
    """See `contracts.engines.load_engine`."""
    return LlamaEngine(bundle, options)


ENGINE = EngineSpec(
    name="llamacpp", modality="chat", extra="chat", image="MODALITIES=chat", batch_rows=32, golden=5, load=load
)
