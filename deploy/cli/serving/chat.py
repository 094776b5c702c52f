"""``fairlead chat``: a conversation in the terminal, or one prompt through a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from contracts.errors import PlatformError
from contracts.ports import free_port
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.serving.chat_client import ChatClient
from deploy.cli.serving.prediction import API_KEY
from deploy.cli.serving.serve import open_endpoint, waiting
from deploy.cli.terminal.output import console, emit

_HELP = "/reset forgets the conversation, /system TEXT sets who answers, /exit or Ctrl-D ends; Ctrl-C stops an answer."
_END = frozenset({"/exit", "/quit"})


class Conversation:
    """What was said, and what a person says next.

    Attributes:
        messages: of the user and the assistant, without the system message.
    """

    def __init__(
        self, client: ChatClient, system: str, options: Mapping[str, Any], write: Callable[[str], None]
    ) -> None:
        self._client, self._options, self._write = client, options, write
        self.system = system
        self.messages: list[dict[str, str]] = []

    def take(self, line: str) -> bool:
        """Do what a line says; whether the conversation goes on."""
        word, _, rest = line.strip().partition(" ")
        if word in _END:
            return False
        if word == "/reset":
            self.messages.clear()
            self._write("The conversation is forgotten.\n")
        elif word == "/system":
            self.system = rest.strip()
            self._write(f"The system message is now: {self.system or 'that of the model'}\n")
        elif word.startswith("/"):
            self._write(f"{_HELP}\n")
        elif word:
            self.say(line.strip())
        return True

    def say(self, text: str) -> None:
        """Ask, and write the answer as it comes; one that is stopped is kept as far as it came."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        asked = [*first, *self.messages, {"role": "user", "content": text}]
        said = ""
        pieces = self._client.stream(asked, self._options)
        try:
            for piece in pieces:
                said += piece
                self._write(piece)
        except KeyboardInterrupt:
            self._write(" [stopped]")
        finally:
            pieces.close()  # type: ignore[attr-defined]
        self._write("\n")
        self.messages += [{"role": "user", "content": text}, {"role": "assistant", "content": said}]


def chat_with(
    profile: str,
    ref: str,
    system: str,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    as_json: bool = False,
) -> None:
    """Talk to a model of the registry, which is served meanwhile, or to the service at an address."""
    given = {"max_completion_tokens": max_tokens, "temperature": temperature, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    piped = not sys.stdin.isatty()
    prompt = sys.stdin.read().strip() if piped else ""
    if (piped or as_json) and not prompt:
        fix = f"echo PROMPT | fairlead chat {ref}{' --json' if as_json else ', or start it in a terminal'}"
        raise PlatformError("nothing was said", fix=fix, code="bad_input")
    with _reached(profile, ref) as client:
        talk = Conversation(client, system, options, (lambda piece: None) if as_json else _write)
        if piped:
            talk.say(prompt)
            if as_json:
                emit({"model": client.model, "answer": talk.messages[-1]["content"]}, True, lambda out: None)
            return
        console().print(f"[bold]{client.model}[/]  {_HELP}", soft_wrap=True)
        while True:
            try:
                if not talk.take(input("> ")):
                    return
            except PlatformError as err:
                console(stderr=True).print(str(err), style="red", markup=False)
            except (EOFError, KeyboardInterrupt):
                _write("\n")
                return


@contextlib.contextmanager
def _reached(profile: str, ref: str) -> Iterator[ChatClient]:
    key = os.environ.get(API_KEY, "")
    if ref.startswith(("http://", "https://")):
        yield ChatClient(ref, key)
        return
    with open_endpoint(load_endpoints(profile), profile, ref, free_port()) as endpoint:
        if endpoint.bundle.document.modality != "chat":
            raise PlatformError(
                f"{endpoint.name}:{endpoint.version} is a {endpoint.bundle.document.modality} model",
                fix=f"fairlead predict {ref} --input ..., or name a chat model",
                code="wrong_modality",
            )
        endpoint.start()
        with waiting(console(stderr=True), f"{endpoint.name}:{endpoint.version}") as tell:
            endpoint.wait_ready(tell)
        yield ChatClient(endpoint.url, key)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
