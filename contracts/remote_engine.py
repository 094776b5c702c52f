"""vLLM's server, which speaks OpenAI's protocol: asked as `contracts.llama_process` is, in a container beside ours.

It serves the bundle's ``model/safetensors`` under a name with the bundle's digest, see `served_name`, so that weights
of another version are never asked. What llama.cpp has and vLLM names otherwise is translated here.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from contracts.errors import PlatformError

SAFETENSORS = "safetensors"  # folder below model/ that vLLM reads
ANSWER_SECONDS, LOOK_SECONDS = 600.0, 5.0
GENERATING = ("/v1/chat/completions", "/v1/completions")
# What llama.cpp does where a request says nothing: the same model answers alike on either engine.
DEFAULTS: Mapping[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
_TOO_LONG = re.compile(r"maximum (?:context|model) length|longer than the maximum", re.IGNORECASE)
_PROMPT = re.compile(r"(\d+) (?:in the messages|input tokens|in the prompt)|(?:contains|has) at least (\d+)")


def served_name(model: str, digest: str) -> str:
    """What vLLM is told to call a bundle's weights."""
    return f"{model}@{digest[:12]}"


class RemoteEngine:
    """vLLM at an address.

    Attributes:
        host, port: where it answers.  key: its bearer token; "" for none.  model: what it calls the weights.
        info: ``n_ctx``, the tokens of a conversation.
        remote: True: it is started, and started again, by others.  socket: "": it is asked by its address.

    Args:
        url: as ``http://127.0.0.1:8000``.
        wait: seconds that it may take until it answers.
    """

    remote = True
    socket = ""

    def __init__(self, url: str, model: str, *, key: str = "", wait: float = 0.0) -> None:
        found = urlsplit(url)
        if found.scheme != "http" or not found.hostname or found.path not in ("", "/"):
            raise PlatformError(
                "the engine's address is none",
                detail=f"engine.url is {url!r}",
                fix="write engine.url as http://HOST:PORT",
                code="bad_settings",
                key="engine.url",
            )
        self.host, self.port, self.key, self.model = found.hostname, found.port or 80, key, model
        end = time.monotonic() + wait
        while not self.running:
            if time.monotonic() >= end:
                raise PlatformError(
                    "the engine does not answer",
                    detail=f"{self.host}:{self.port} within {wait:g} seconds",
                    fix="look at the log of the container engine, or raise engine.wait_seconds",
                    code="engine_away",
                )
            time.sleep(0.2)
        served = {one["id"]: one for one in self.call("GET", "/v1/models")["data"]}
        if model not in served:
            raise PlatformError(
                "the engine serves another model",
                detail=f"it has {', '.join(sorted(served)) or 'none'}; this service needs {model}",
                fix="start vLLM with the safetensors of this bundle, under the name that is asked for",
                code="wrong_engine",
            )
        self.info: dict[str, Any] = {"n_ctx": int(served[model].get("max_model_len") or 0)}

    @property
    def running(self) -> bool:
        """Whether it answers and is well."""
        try:
            return self._asked("GET", "/health", None, LOOK_SECONDS)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def last_words(self, said: str = "") -> str:
        """What is known of its end."""
        return said or f"no answer of {self.host}:{self.port}"

    def call(self, method: str, path: str, document: Any = None) -> Any:
        """The JSON answer to one request, as `contracts.llama_process.LlamaProcess.call`.

        Raises:
            PlatformError: ``code="llama_refused"``, with its words; ``code="llama_ended"`` when it does not answer.
        """
        if document is not None:
            document = self.translated(path, document)
        try:
            status, raw = self._asked(method, path, document, ANSWER_SECONDS)
            answer = json.loads(raw) if raw.strip() else {}
        except (OSError, http.client.HTTPException, ValueError) as err:
            raise PlatformError(
                "vLLM gave no answer", detail=f"{type(err).__name__}: {err}", code="llama_ended"
            ) from err
        if status != 200:
            detail = failure_of(answer, status)["message"]
            raise PlatformError("vLLM refused a request", detail=detail, code="llama_refused")
        return answer

    def metrics(self) -> bytes:
        """Its own metrics, as Prometheus reads them.

        Raises:
            PlatformError: ``code="engine_away"``.
        """
        try:
            return self._asked("GET", "/metrics", None, LOOK_SECONDS)[1]
        except (OSError, http.client.HTTPException) as err:
            detail = f"{type(err).__name__}: {err}"
            raise PlatformError("the engine gives no metrics", detail=detail, code="engine_away") from err

    def templated(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """A conversation by the model's chat template.

        Raises:
            PlatformError: as of `call`.
        """
        tokens = self.call("POST", "/tokenize", {"messages": messages, "add_generation_prompt": True})["tokens"]
        text: str = self.call("POST", "/detokenize", {"tokens": tokens})["prompt"]
        return text

    def translated(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """A request as vLLM takes it."""
        made = {**(DEFAULTS if path in GENERATING else {}), "model": self.model, **document}
        if (grammar := made.pop("grammar", None)) is not None:
            made["structured_outputs"] = {"grammar": grammar}
        return made

    def adapters(self) -> list[str]:
        """The adapters that it has, which are called as its model is, a colon, and more.

        Raises:
            PlatformError: as of `call`.
        """
        names = [str(one["id"]) for one in self.call("GET", "/v1/models")["data"]]
        return [name for name in names if name.startswith(f"{self.model}:")]

    def load_adapter(self, name: str, folder: str) -> None:
        """Let it read an adapter from a folder, as peft writes it; one that it has is let be.

        Raises:
            PlatformError: ``code="adapter_refused"``; ``code="engine_away"``.
        """
        self._change("load", {"lora_name": name, "lora_path": folder}, "already been loaded")

    def unload_adapter(self, name: str) -> None:
        """Let it forget an adapter; one that it has not is no error, nor is an engine that is away."""
        with contextlib.suppress(PlatformError):
            self._change("unload", {"lora_name": name}, "")

    def _change(self, verb: str, document: Mapping[str, Any], fine: str) -> None:
        try:
            status, raw = self._asked("POST", f"/v1/{verb}_lora_adapter", document, ANSWER_SECONDS)
        except (OSError, http.client.HTTPException) as err:
            detail = f"{type(err).__name__}: {err}"
            raise PlatformError("the engine does not answer", detail=detail, code="engine_away") from err
        said = raw.decode(errors="replace")[:500]
        if status != 200 and not (fine and fine in said):
            fix = "let vLLM have adapters of this rank: config.adapters.folder and engine.maxRank of the chart"
            raise PlatformError("the engine refuses an adapter", detail=said, fix=fix, code="adapter_refused")

    def stop(self) -> None:
        """Nothing: it is others' to end."""

    def _asked(self, method: str, path: str, document: Any, seconds: float) -> tuple[int, bytes]:
        body = None if document is None else json.dumps(document).encode()
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {self.key}"} if self.key else {})
        connection = http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def failure_of(document: Any, status: int) -> dict[str, Any]:
    """What an answer that is none says, in llama.cpp's words: ``code``, ``message``, ``type``, ``n_prompt_tokens``.

    vLLM has three forms: ``{"error": {...}}``, the older ``{"object": "error", ...}``, and FastAPI's
    ``{"detail": ...}``.
    """
    document = document if isinstance(document, dict) else {}
    inner = document.get("error")
    told: dict[str, Any] = inner if isinstance(inner, dict) else document
    message = str(told.get("message") or document.get("detail") or "")
    made: dict[str, Any] = {**told, "code": status, "message": message, "type": told.get("type") or ""}
    if status == 400 and _TOO_LONG.search(message):
        made["type"] = "exceed_context_size_error"
        if found := _PROMPT.search(message):
            made["n_prompt_tokens"] = int(found[1] or found[2])
    return made
