"""A model's service inside this process, asked without a port: the same checks, features and answers as over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from deploy.cli.serving.endpoint import flat

if TYPE_CHECKING:
    from contracts.bundle import Bundle
    from contracts.endpoints import Endpoints
    from contracts.registry import ModelVersion

R = TypeVar("R")


class InProcessService:
    """The service of one model version; a context manager. Predictions are not logged.

    Its event loop has a thread of its own, because a notebook's kernel runs one in the thread that asks.
    """

    def __init__(
        self, endpoints: Endpoints, version: ModelVersion, bundle: Bundle, settings: Mapping[str, Any] | None = None
    ) -> None:
        from contracts.settings import load
        from services.settings import ServiceSettings

        online = endpoints.uri("online") if bundle.document.feature_service else ""
        given = {"bundle": str(bundle.path), "name": version.name, "version": version.version, "online": online}
        overrides = {**flat(settings or {}), **given, "predictions.folder": ""}
        self._settings = load(ServiceSettings, environ={}, overrides=overrides)
        self._modality = bundle.document.modality
        self._runner = asyncio.Runner()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fairlead-service")
        self._log = logging.getLogger("fairlead.service")
        self._log_level = self._log.level
        self._runtime: Any = None
        self._app: Any = None

    def __enter__(self) -> InProcessService:
        from services.server.bento import asgi_app
        from services.server.lifecycle import MODALITIES

        self._runtime = MODALITIES.get(self._modality).make()
        self._app = asgi_app(self._runtime)
        try:
            self._run(self._start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._run(self._runtime.stop())
        finally:
            self._end()
            self._log.setLevel(self._log_level)

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        return self._thread.submit(self._runner.run, work).result()

    def _end(self) -> None:
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    async def _start(self) -> None:
        await self._runtime.start(self._settings)
        self._log.setLevel(logging.CRITICAL)  # it is not for this terminal
        try:
            await self._runtime.loaded()
            if self._runtime.failure is not None:
                raise self._runtime.failure
        except BaseException:
            self._log.setLevel(self._log_level)
            raise

    def predict(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and document that ``POST /predict`` answers."""
        return self.post("/predict", body)

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and document that a POST of `body` to a path of the service answers."""
        return self._run(self._post(path, json.dumps(body).encode()))

    async def _post(self, path: str, body: bytes) -> tuple[int, Any]:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        sent: list[Mapping[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        text = b"".join(message.get("body", b"") for message in sent)
        return int(sent[0]["status"]), json.loads(text)
