"""llama.cpp in a process of its own: what crashes there ends no other process.

``python -m contracts.llama_process`` reads one line of JSON from its standard input, `LlamaOptions`, answers with one
line, ``{"address": ...}`` or ``{"error": ...}``, and ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from contracts.errors import PlatformError
from contracts.gguf import MAGIC

_ERROR = re.compile(r"^\S+ E (.+)$", re.MULTILINE)  # of its log
_NONE, _PARTS = "\ufffd", 4  # bytes that are no character; tokens that one may have
_LIKELY = 256  # tokens whose probabilities are asked for, before those of all are
_LONGEST_NAME = 104  # bytes of the file of a socket, on every system
ANSWER_SECONDS = 600.0  # a call that takes longer has failed


@dataclass(frozen=True, kw_only=True)
class LlamaOptions:
    """How a model is executed.

    Attributes:
        model: GGUF file.
        window: tokens of one conversation, prompt and answer together.
        slots: conversations that are continued together, each of a whole window.
        threads: of the CPU.
        name: that answers give the model.
        key: that its requests must carry.  socket: file of a socket that it listens on as well; "" for none.
        adapters: GGUF files of matrices of low rank, each applied to all answers.
        chosen: adapters are applied to answers whose request names one by its place, as
            ``"lora": [{"id": 0, "scale": 1.0}]``, and to no others.
        embeds: whether it gives vectors of texts, with one slot and nothing beside them: llama.cpp spreads texts of
            several slots over runs, which cuts their pooling, and lets them wait as long as another slot writes.
        pooling: of tokens to one vector: mean, cls, last, or auto: as the weights say, else mean.
    """

    model: str
    window: int
    slots: int = 1
    threads: int = 1
    name: str = "model"
    key: str = ""
    socket: str = ""
    adapters: tuple[str, ...] = ()
    chosen: bool = False
    embeds: bool = False
    pooling: str = "auto"


class LlamaProcess:
    """The running process.

    Attributes:
        host, port: where it answers, in the manner of OpenAI.  key: its bearer token, which only we know.
        socket: file of a socket on which it answers as well, at half the cost of a connection; "" for none.
        remote: False: it is ours, and its end is that of the service.
        info: what it says of its model: ``n_ctx_train``, ``n_vocab``, ``n_params``, ``chat_template`` ...
    """

    remote = False

    def __init__(self, options: LlamaOptions) -> None:
        for file in (options.model, *options.adapters):
            check_gguf(Path(file))
        self.key, self.socket = secrets.token_hex(16), _socket_file()
        self._parts: dict[int, bool] = {}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        command = [sys.executable, "-m", "contracts.llama_process"]
        path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(
                json.dumps(asdict(options) | {"key": self.key, "socket": self.socket}).encode() + b"\n"
            )
            self._child.stdin.flush()
        said = self._child.stdout.readline()
        answer = json.loads(said) if said.startswith(b"{") else {}
        if "address" not in answer:
            words = self.last_words(answer.get("error", ""))
            self.stop()
            raise _refused(options.model, words)
        found = urlsplit(answer["address"])
        self.host, self.port = found.hostname or "127.0.0.1", found.port or 0
        models = self.call("GET", "/v1/models")["data"][0]["meta"]
        self.info: dict[str, Any] = {**models, **self.call("GET", "/props")}

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child.poll() is None

    def last_words(self, said: str = "") -> str:
        """The first error that it wrote, which later ones follow from; else what it `said`, or how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=1)
        self._errors.seek(0)
        found = _ERROR.search(self._errors.read().decode(errors="replace"))
        return found[1] if found else said or f"it ended with status {self._child.returncode}"

    def call(self, method: str, path: str, document: Any = None) -> Any:
        """The JSON answer to one request; safe to call from any thread.

        Raises:
            PlatformError: ``code="llama_refused"``, with its words; ``code="llama_ended"`` when it does not answer.
        """
        body = None if document is None else json.dumps(document).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {self.key}"}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as err:
            detail = self.last_words() if not self.running else f"{type(err).__name__}: {err}"
            raise PlatformError("llama.cpp gave no answer", detail=detail, code="llama_ended") from err
        finally:
            connection.close()
        if response.status != 200:
            message = answer.get("error", {}).get("message", "")
            raise PlatformError("llama.cpp refused a request", detail=message, code="llama_refused")
        return answer

    def templated(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """A conversation by the model's chat template.

        Raises:
            PlatformError: as of `call`.
        """
        text: str = self.call("POST", "/apply-template", {"messages": messages})["prompt"]
        return text

    def log_likelihood(self, text: str, most: int = 512) -> tuple[float, int]:
        """The natural log of the probability of a text's tokens, and the bytes of it that they are.

        The server tells probabilities of tokens that it writes only, so each token in turn is made the only choice by a
        bias, which the probability that is told knows nothing of. That is one request a token; what was read before
        stays in the slot. A token that is a part of a character, as those of Chinese are in vocabularies of English, is
        never told alone, as the server waits for the whole: there a sign is written, and all probabilities are told
        beside it. The first
        character counts only where the model begins texts with a token of its own.

        Args:
            text: of which at most `most` tokens are read, to the end of a character, and no more than fit into the
                window.

        Raises:
            PlatformError: as of `call`; ``code="llama_refused"`` also where a token's probability is not told.
        """
        tokens = self.call("POST", "/tokenize", {"content": text, "add_special": True})["tokens"]
        plain = self.call("POST", "/tokenize", {"content": text, "add_special": False})["tokens"]
        begun = len(tokens) - len(plain)  # tokens of the model's own, whose names are no part of the text
        tokens = tokens[: min(most, int(self.info["n_ctx"]) - 1)]
        while len(tokens) > begun and self._is_cut(tokens[begun:]):
            tokens = tokens[:-1]
        at = begun or next((size for size in range(1, len(tokens)) if not self._is_cut(tokens[:size])), len(tokens))
        total = float(sum(self._logprob(tokens[:place], tokens[place]) for place in range(at, len(tokens))))
        size = len(self._text(tokens[begun:]).encode())
        return total, size - (0 if begun else len(self._text(tokens[:at]).encode()))

    def _text(self, tokens: Sequence[int]) -> str:
        found: str = self.call("POST", "/detokenize", {"tokens": list(tokens)})["content"]
        return found

    def _is_cut(self, tokens: Sequence[int]) -> bool:
        """Whether tokens end within a character, of which the server tells that it is none."""
        return self._text(tokens[-_PARTS:]).endswith(_NONE)

    def _logprob(self, before: Sequence[int], token: int) -> float:
        """The natural log of the probability of a token after others."""
        asked = {"prompt": list(before), "cache_prompt": True, "seed": 0, "temperature": 1.0, "samplers": []}

        def told(written: int, number: int) -> list[dict[str, Any]]:
            only = {"logit_bias": [[written, 1e4]], "n_probs": number, "n_predict": 1}
            found = self.call("POST", "/completion", {**asked, **only}).get("completion_probabilities") or [{}]
            return [found[0], *found[0].get("top_logprobs", [])]

        if not self._is_part(token):
            for one in told(token, 1):
                if one.get("id") == token:
                    return float(one["logprob"])
        for number in (_LIKELY, int(self.info["n_vocab"])):
            for one in told(self._sign(), number):
                if one.get("id") == token:
                    return float(one["logprob"])
        detail = f"token {token} is none of those that are told"
        raise PlatformError("the likelihood of the text is not told", detail=detail, code="llama_refused")

    def _is_part(self, token: int) -> bool:
        """Whether a token is no whole characters."""
        if token not in self._parts:
            self._parts[token] = _NONE in self._text([token])
        return self._parts[token]

    def _sign(self) -> int:
        """A token that is a whole character in every vocabulary."""
        found: int = self.call("POST", "/tokenize", {"content": "a", "add_special": False})["tokens"][-1]
        return found

    def stop(self) -> None:
        """End it."""
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        _remove(self.socket)

    def __del__(self) -> None:
        if hasattr(self, "_child") and self._child.returncode is None and self._child.stdin is not None:
            self._child.kill()
            _remove(self.socket)


def check_gguf(file: Path) -> None:
    """Refuse what is no GGUF file.

    Raises:
        PlatformError: ``code="bad_weights"``.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(len(MAGIC))
    except OSError as err:
        raise _refused(str(file), err.strerror or str(err)) from err
    if start != MAGIC:
        raise _refused(str(file), f"it begins with {start!r}, not with {MAGIC!r}")


def _refused(file: str, detail: str) -> PlatformError:
    fix = "give a whole GGUF file of an architecture that llama.cpp knows"
    return PlatformError(f"weights refused: {file}", detail=detail, fix=fix, code="bad_weights")


def _socket_file() -> str:
    """A name for a socket in a folder of its own, which nobody else may enter; "" where there can be none."""
    try:
        folder = tempfile.mkdtemp(prefix="llama-")
    except OSError:
        return ""
    file = os.path.join(folder, "llama.sock")
    if len(os.fsencode(file)) < _LONGEST_NAME:
        return file
    _remove(file)
    return ""


def _remove(file: str) -> None:
    """A socket and its folder."""
    if file:
        with contextlib.suppress(OSError):
            shutil.rmtree(Path(file).parent)


def serve(options: LlamaOptions) -> Any:
    """Start llama.cpp's server on a free port of this machine; it runs as long as what is returned."""
    import xllamacpp as llama

    params = llama.CommonParams()
    params.model.path = options.model
    params.model_alias = options.name
    scale = 0.0 if options.chosen else 1.0
    params.lora_adapters = [llama.CommonAdapterLoraInfo(file, scale) for file in options.adapters]
    params.hostnames = ["127.0.0.1", options.socket] if options.socket else ["127.0.0.1"]
    params.port, params.api_keys = 0, [options.key]
    params.n_ctx, params.n_parallel = options.window * options.slots, options.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.n_threads_http = options.slots + 4  # one for each stream, and some for short questions
    params.ctx_shift = False  # what does not fit into the window is refused, not forgotten
    params.cont_batching = params.cache_prompt = params.use_jinja = True
    params.fit_params = False  # no other window than the one that was asked for
    params.cache_ram_mib = 0  # prompts are kept in their slots, not in memory without a bound
    params.endpoint_slots, params.endpoint_metrics, params.ui = True, False, False
    if options.embeds:
        kinds = llama.llama_pooling_type
        said = _pooling_of(Path(options.model)) if options.pooling == "auto" else options.pooling
        params.embedding = True
        params.pooling_type = getattr(kinds, f"LLAMA_POOLING_TYPE_{said.upper()}")
        params.n_batch = params.n_ubatch = options.window  # a text is read at once
    params.verbosity = 1  # errors: more would have texts of requests
    return llama.Server(params)


def _pooling_of(file: Path) -> str:
    """How the weights say that tokens become one vector; ``mean`` where they do not."""
    with file.open("rb") as stream:
        head = stream.read(1 << 20)
    place = head.find(b".pooling_type")
    number = head[place + 17 : place + 21] if place >= 0 else b""  # behind the name and the kind of the value
    return {1: "mean", 2: "cls", 3: "last"}.get(int.from_bytes(number, "little"), "mean")


def main() -> int:
    """Serve until standard input ends."""
    options = LlamaOptions(**json.loads(sys.stdin.readline()))
    try:
        server = serve(options)
    except Exception as err:  # noqa: BLE001 - whatever it is, the other side has to know
        sys.stdout.write(json.dumps({"error": f"{type(err).__name__}: {err}"}) + "\n")
        return 1
    sys.stdout.write(json.dumps({"address": server.listening_address}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    _remove(options.socket)  # whoever made it may have been killed
    os._exit(0)  # its threads may be in the middle of an answer, which nobody waits for


if __name__ == "__main__":
    raise SystemExit(main())
