"""A server that speaks as vLLM's does, and answers as the tiny Llama: for tests of what asks it, without a GPU.

``python -m tests.vllm_stand_in --served-model-name NAME --port N`` has vLLM's paths, its names of
metrics, its three forms of errors, and adapters that are loaded while it runs and chosen as models. What it was asked,
in the order it came, is told by ``/asked``.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from tests.tiny_llama import END, VOCABULARY, _successors

WINDOW = 512


class Server(ThreadingHTTPServer):
    """Attributes: model: name of the base.  adapters: successors by name.  asked: bodies.  running: requests."""

    daemon_threads = True
    model = ""
    adapters: dict[str, dict[int, int]] = {}  # noqa: RUF012
    asked: list[dict[str, Any]] = []  # noqa: RUF012
    running = tokens = left = 0
    lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *given: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, b"")
        elif self.path == "/metrics":
            served = self.server
            text = f'vllm:num_requests_running{{model_name="{served.model}"}} {served.running}\n'
            text += f'vllm:generation_tokens_total{{model_name="{served.model}"}} {served.tokens}\n'
            self._send(200, text.encode(), "text/plain; version=0.0.4")
        elif self.path == "/v1/models":
            names = [self.server.model, *self.server.adapters]
            models = [{"id": one, "object": "model", "owned_by": "vllm", "max_model_len": WINDOW} for one in names]
            self._json(200, {"object": "list", "data": models})
        elif self.path == "/asked":
            self._json(
                200, {"asked": self.server.asked, "left": self.server.left, "adapters": list(self.server.adapters)}
            )
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        served = self.server
        with served.lock:
            served.asked.append({"path": self.path, **asked})
        if self.path == "/v1/load_lora_adapter":
            served.adapters[asked["lora_name"]] = _adapter(Path(asked["lora_path"]))
            self._send(200, f"Success: LoRA adapter '{asked['lora_name']}' added successfully.".encode(), "text/plain")
        elif self.path == "/v1/unload_lora_adapter":
            served.adapters.pop(asked["lora_name"])
            self._send(200, b"Success", "text/plain")
        elif self.path == "/tokenize":
            text = _templated(asked["messages"])
            self._json(200, {"count": len(text), "max_model_len": WINDOW, "tokens": list(map(ord, text))})
        elif self.path == "/detokenize":
            self._json(200, {"prompt": "".join(map(chr, asked["tokens"]))})
        elif self.path in ("/v1/chat/completions", "/v1/completions"):
            self._answer(asked)
        else:
            self._json(404, {"detail": "Not Found"})

    def _answer(self, asked: dict[str, Any]) -> None:
        served, name = self.server, asked["model"]
        if name != served.model and name not in served.adapters:
            message = f"The model `{name}` does not exist."
            self._json(404, {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}})
            return
        chat = self.path == "/v1/chat/completions"
        prompts = [asked["prompt"]] if isinstance(asked.get("prompt"), str) else asked.get("prompt", [])
        prompts = [_templated(asked["messages"])] if chat else prompts
        lasts = [asked["messages"][-1]["content"][-1:]] if chat else [one[-1:] for one in prompts]
        if "boom" in prompts[0]:  # of before version 0.10
            self._json(400, {"object": "error", "message": "a template raised", "type": "BadRequestError", "code": 400})
            return
        longest = max(map(len, prompts))
        if longest >= WINDOW:
            message = f"This model's maximum context length is {WINDOW} tokens. However, your request has {longest} "
            message += "input tokens."
            self._json(400, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}})
            return
        most = min(asked.get("max_tokens") or WINDOW, WINDOW - longest)
        after = _successors() | served.adapters.get(name, {})
        with served.lock:
            served.running += 1
        try:
            if asked.get("stream"):
                self._stream(asked, chat, lasts, after, most, sum(map(len, prompts)))
            else:
                text, finish = _whole(lasts[0], after, most)
                said = {"role": "assistant", "content": text}
                usage = {"prompt_tokens": longest, "completion_tokens": len(text), "total_tokens": longest + len(text)}
                choice = {"index": 0, "message": said, "finish_reason": finish}
                self._json(200, {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})
        except OSError:
            served.left += 1
            self.close_connection = True
        finally:
            with served.lock:
                served.running -= 1

    def _stream(
        self, asked: dict[str, Any], chat: bool, lasts: list[str], after: dict[int, int], most: int, read: int
    ) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        each, written = asked.get("n") or 1, 0
        for at, last in enumerate(one for one in lasts for _ in range(each)):
            if chat:
                self._event(
                    [
                        {
                            "index": at,
                            "delta": {"role": "assistant", "content": ""},
                            "logprobs": None,
                            "finish_reason": None,
                        }
                    ]
                )
            left = most
            for sign in _written(last, after):
                if not left:
                    break
                if sign == "!":
                    dead = {"message": "EngineDeadError", "type": "InternalServerError", "code": 500}
                    self._chunk(b"data: " + json.dumps({"error": dead}).encode() + b"\n\n")
                    break
                left, written = left - 1, written + 1
                self.server.tokens += 1
                said: dict[str, Any] = {"delta": {"content": sign}} if chat else {"text": sign}
                self._event([{"index": at, **said, "logprobs": _logprobs(asked, chat, sign), "finish_reason": None}])
                if left > 100:
                    time.sleep(0.005)
            end: dict[str, Any] = {"delta": {"content": ""}} if chat else {"text": ""}
            self._event([{"index": at, **end, "logprobs": None, "finish_reason": "stop" if left else "length"}])
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        self._chunk(b"data: " + json.dumps({"id": "1", "choices": [], "usage": usage}).encode() + b"\n\n")
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, choices: list[dict[str, Any]]) -> None:
        self._chunk(b"data: " + json.dumps({"id": "1", "choices": choices}).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _json(self, status: int, document: Any) -> None:
        self._send(status, json.dumps(document).encode(), "application/json")

    def _send(self, status: int, body: bytes, media: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("content-type", media)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _templated(messages: list[dict[str, str]]) -> str:
    return "".join(f"<{one['role']}>{one['content']}" for one in messages)


def _written(last: str, after: dict[int, int]) -> Iterator[str]:
    at = VOCABULARY.index(last) if last in VOCABULARY else END
    while (at := after[at]) != END:
        yield VOCABULARY[at] if not re.fullmatch("<0x..>", VOCABULARY[at]) else ""


def _whole(last: str, after: dict[int, int], most: int) -> tuple[str, str]:
    text = ""
    for sign in _written(last, after):
        if len(text) == most:
            return text, "length"
        text += sign
    return text, "stop"


def _adapter(folder: Path) -> dict[int, int]:
    """What follows what, by matrices of rank 1 over the head."""
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    found = load_file(folder / "adapter_model.safetensors")
    down, up = (next(one for name, one in found.items() if f"lora_{side}." in name) for side in "AB")
    return {int(down[0].argmax()): int(up[:, 0].argmax())}


def _logprobs(asked: dict[str, Any], chat: bool, sign: str) -> Any:
    if not asked.get("logprobs"):
        return None
    if chat:
        top = [{"token": sign, "logprob": -0.5, "bytes": list(sign.encode())}] * (asked.get("top_logprobs") or 0)
        return {"content": [{"token": sign, "logprob": -0.5, "bytes": list(sign.encode()), "top_logprobs": top}]}
    return {"tokens": [sign], "token_logprobs": [-0.5], "top_logprobs": [{sign: -0.5}], "text_offset": [0]}


def main() -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="tests.vllm_stand_in", description=__doc__)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    server = Server(("127.0.0.1", options.port), Handler)
    server.model = options.served_model_name
    server.serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
