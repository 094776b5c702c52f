"""Models as a command names them: a service's address, a bundle's folder, or a model of the registry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.ports import free_port
from deploy.cli.profiles.loading import load_deployment, load_endpoints
from deploy.cli.serving.endpoint import Endpoint as Served
from deploy.cli.serving.endpoint import Served as Version
from deploy.cli.serving.prediction import API_KEY
from deploy.cli.serving.serve import open_endpoint, waiting
from deploy.cli.terminal.output import console
from pipelines.suites.asking import Answer, Asker, Endpoint, KeptAnswers, ask_all

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.bundle import Bundle
    from pipelines.suites.document import Message, Request


@dataclass(frozen=True)
class Reachable:
    """A model that can be asked as long as `open` is.

    Attributes:
        name, identity: as of `Asker`.
    """

    name: str
    identity: str
    open: Callable[[], contextlib.AbstractContextManager[Asker]]


@dataclass(frozen=True)
class Known:
    """A model whose answers are all kept. See `Asker`."""

    name: str
    identity: str

    def ask(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Answer:
        """It is not asked."""
        raise PlatformError(f"an answer of {self.name} is gone", fix="run it again: --again", code="no_answer")


def reach(profile: str, ref: str, key_variable: str = API_KEY) -> Reachable:
    """The model that `ref` means: http://HOST:PORT (``#MODEL`` behind it names one of several), a folder, a reference.

    Raises:
        PlatformError: there is none, or it does not chat.
    """
    if ref.startswith(("http://", "https://")):
        url, _, model = ref.partition("#")
        endpoint = Endpoint(url, os.environ.get(key_variable, ""), model)
        return Reachable(endpoint.name, endpoint.identity, lambda: contextlib.nullcontext(endpoint))
    from contracts.bundle import is_bundle, read_bundle
    from contracts.prompts import content_version
    from contracts.registry import Registry, parse_ref

    endpoints = load_endpoints(profile)
    if is_bundle(ref):
        bundle = read_bundle(ref)
        name, version = bundle.document.name, bundle.digest[:12]
        _check_chat(bundle, ref)
        made = Served(endpoints, Version(name, version), bundle, free_port(), {"predictions.folder": ""})
        return Reachable(f"{name}:{version}", bundle.digest, lambda: _served(made, bundle.digest))
    found = Registry(endpoints).resolve(load_deployment(profile, parse_ref(ref)[0]).model if _plain(ref) else ref)
    name = f"{found.name}:{found.version}"
    made = open_endpoint(endpoints, profile, name, free_port(), log=False)
    _check_chat(made.bundle, ref)
    # The guard and other settings of the service have a part in its answers.
    identity = f"{found.digest} {content_version(load_deployment(profile, found.name).config)}"
    return Reachable(name, identity, lambda: _served(made, identity))


def answered(model: Reachable, requests: Sequence[Request], kept: KeptAnswers, at_once: int, out: Console) -> Known:
    """See that all answers are kept; a model is served only while some are missing."""
    if kept.missing(model.identity, requests):
        with model.open() as asker, bar(out, model.name, len(requests)) as tell:
            ask_all(asker, requests, kept, at_once, tell)
    return Known(model.name, model.identity)


@contextlib.contextmanager
def bar(out: Console, what: str, total: int) -> Iterator[Callable[[bool], None]]:
    """A bar of requests; in a terminal only."""
    if not out.is_terminal:
        yield lambda cached: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out) as shown:
        task = shown.add_task(what, total=total)
        yield lambda cached: shown.advance(task)


@contextlib.contextmanager
def _served(made: Served, identity: str) -> Iterator[Asker]:
    with made as endpoint:
        endpoint.start()
        with waiting(console(stderr=True), f"{endpoint.name}:{endpoint.version}") as tell:
            endpoint.wait_ready(tell)
        key = os.environ.get(API_KEY, "")
        yield Endpoint(endpoint.url, key, endpoint.name, f"{endpoint.name}:{endpoint.version}", identity)


def _check_chat(bundle: Bundle, ref: str) -> None:
    if bundle.document.modality != "chat":
        raise PlatformError(
            f"{ref} is a {bundle.document.modality} model",
            detail="suites ask models that chat",
            fix=f"fairlead predict {ref} --input ..., or name a chat model",
            code="wrong_modality",
        )


def _plain(ref: str) -> bool:
    return "@" not in ref and ":" not in ref
