"""``/encrypted``: rows that only their sender can read, scored by a linear model; see docs/trust.md.

Nothing is logged but counts: no row, no score, no ciphertext. Keys are public ones, kept in memory by their id.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import orjson
from prometheus_client import Gauge
from pydantic import ValidationError

from contracts import metric_names as names
from contracts.bundle import Bundle
from contracts.encrypted import SLOTS, Head, Limits, Published, key_id, open_linear, pack, unpack
from services.batching.executor import Executor
from services.errors import Problem, invalid
from services.metrics.series import Counter
from services.model.runtime import OpenLookup, RowRuntime
from services.server.lifecycle import Api, Modality
from services.server.requests import Answer, Request, Route
from services.settings import EncryptedSettings, ServiceSettings
from services.tabular.ciphertexts import Evaluator
from services.tabular.lookup import open_lookup

T = TypeVar("T")
MEDIA = "application/octet-stream"
_CALLERS = 10_000


class Budget:
    """Rows that each caller may still have scored; what is asked of a linear model often enough is known.

    A caller is the holder of an API key, else a public key.
    """

    def __init__(self, settings: EncryptedSettings) -> None:
        self._rows, self._seconds = settings.budget_rows, settings.budget_seconds
        self._spent: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, caller: str, rows: int) -> int:
        """Charge `rows`; returns what is left.

        Raises:
            Problem: 429 when less is left.
        """
        now = monotonic()
        since, spent = self._spent.pop(caller, (now, 0))
        if now - since >= self._seconds:
            since, spent = now, 0
        allowed = spent + rows <= self._rows
        self._spent[caller] = since, spent + rows * allowed
        while len(self._spent) > _CALLERS:
            self._spent.popitem(last=False)
        if not allowed:
            wait = max(1, math.ceil(since + self._seconds - now))
            detail = f"{self._rows - spent} of {self._rows} rows are left for the next {wait} s, and {rows} were sent"
            raise Problem(
                429,
                "budget-spent",
                "the budget of encrypted rows is spent",
                detail,
                fix="wait, or ask who runs the service to raise encrypted.budget_rows",
                headers={"retry-after": str(wait)},
            )
        return self._rows - spent - rows


class EncryptedModel:
    """One linear model that answers encrypted rows, with a thread and a store of keys of its own."""

    def __init__(self, runtime: RowRuntime, bundle: Bundle, on_crash: Callable[[BaseException], None]) -> None:
        self._runtime, self.settings = runtime, runtime.settings.encrypted
        linear = open_linear(bundle)
        self._evaluator = Evaluator(linear)
        document = bundle.document
        self.published = Published(
            model=runtime.name,
            version=runtime.version,
            form=linear.form,
            link=linear.link,
            signature=document.signature,
            decision=document.decision,
            limits=Limits(
                bound=self._evaluator.bound,
                body_bytes=self.settings.max_body_bytes,
                budget_rows=self.settings.budget_rows,
                budget_seconds=self.settings.budget_seconds,
            ),
        )
        self.id = self.published.id
        self._keys: OrderedDict[str, Any] = OrderedDict()
        self._budget = Budget(self.settings)
        self._executor = Executor(1, on_crash)
        self._waiting = 0
        registry, label = runtime.metrics.registry, (runtime.name, runtime.version)
        rows = Counter(
            names.ENCRYPTED_ROWS, "Encrypted rows scored.", names.ENCRYPTED_LABELS[names.ENCRYPTED_ROWS], registry
        )
        self._rows = {layout: rows.labels(*label, layout) for layout in ("rows", "columns")}
        kept = Gauge(
            names.ENCRYPTED_KEYS, "Public keys kept.", names.ENCRYPTED_LABELS[names.ENCRYPTED_KEYS], registry=registry
        )
        kept.labels(runtime.name).set_function(lambda: len(self._keys))

    def close(self) -> None:
        """Finish what is being computed."""
        self._executor.stop()

    async def take_keys(self, request: Request) -> Answer:
        """``POST /encrypted/keys``: keep public keys, and say by which id."""
        data = await self._alone(lambda: self._body(request, self.settings.max_key_bytes), self._keep)
        return Answer(orjson.dumps({"key": data}), 200)

    async def score(self, request: Request) -> Answer:
        """``POST /encrypted/score``: see `contracts.encrypted.Head`."""
        limit = self.settings.max_body_bytes
        answer: Answer = await self._alone(lambda: self._body(request, limit), partial(self._score, request))
        return answer

    async def _body(self, request: Request, limit: int) -> bytes:
        if request.media != MEDIA:
            raise Problem(415, "not-binary", "the request must be binary", fix=f"send the header content-type: {MEDIA}")
        request.body_limit = limit
        return await request.body()

    async def _alone(self, read: Callable[[], Any], answer: Callable[[bytes], Any]) -> Any:
        """Read a body and answer it; few at a time, so that bodies do not fill the memory."""
        if self._waiting >= self.settings.max_waiting:
            self._runtime.metrics.shed("queue_full")
            detail = f"at most {self.settings.max_waiting} encrypted requests at a time are accepted; try again"
            raise Problem(429, "overloaded", "too many requests are waiting", detail, headers={"retry-after": "1"})
        self._waiting += 1
        try:
            return await answer(await read())
        finally:
            self._waiting -= 1

    async def _compute(self, call: Callable[[Callable[[], None]], T]) -> T:
        """What `call` makes on the thread; it is given what raises when nobody waits any more."""
        waiting = [True]

        def check() -> None:
            if not waiting:
                raise TimeoutError

        def run() -> T:
            check()
            return call(check)

        try:
            return await self._executor.run(run)
        finally:
            waiting.clear()

    async def _keep(self, data: bytes) -> str:
        name = key_id(data)
        if name not in self._keys:
            keys = await self._compute(lambda check: self._evaluator.keys(data))
            self._keys[name] = keys
            while len(self._keys) > self.settings.max_keys:
                self._keys.popitem(last=False)
        self._keys.move_to_end(name)
        return name

    async def _score(self, request: Request, body: bytes) -> Answer:
        head, frames = self._head(body)
        if head.attached:
            if not frames or len(frames[0]) > self.settings.max_key_bytes:
                raise invalid([("attached", f"expected keys of at most {self.settings.max_key_bytes} bytes")])
            if key_id(frames[0]) != head.key:
                raise invalid([("key", "is not the id of the keys that are attached")])
            await self._keep(frames.pop(0))
        keys = self._keys.get(head.key)
        if keys is None:
            raise Problem(
                404, "unknown-key", "these public keys are not kept here (any more)", fix="send them with the request"
            )
        self._keys.move_to_end(head.key)
        self._check_count(head, len(frames))
        left = self._budget.take(self._caller(request, head.key), head.rows)
        compute = self._evaluator.rows if head.layout == "rows" else self._evaluator.columns
        answers = await self._compute(lambda check: compute(keys, frames, head.rows, check))
        self._rows[head.layout].inc(head.rows)
        return Answer(pack(answers), media=MEDIA, headers=(("x-fairlead-rows-left", str(left)),))

    def _head(self, body: bytes) -> tuple[Head, list[bytes]]:
        try:
            first, *frames = unpack(body)
            head = Head.model_validate_json(first)
        except ValidationError as err:
            found = [(".".join(map(str, item["loc"])) or "(head)", item["msg"]) for item in err.errors()]
            raise invalid(found) from None
        except ValueError as err:
            raise Problem(400, "malformed-frames", "the request is not made of frames", str(err)) from None
        if head.published != self.id:
            raise Problem(
                409, "another-version", "the rows were prepared for another version", fix="ask GET /encrypted again"
            )
        return head, frames

    def _check_count(self, head: Head, count: int) -> None:
        """That a request has as many ciphertexts as its rows need."""
        if head.layout == "columns" and head.rows > SLOTS:
            raise invalid([("rows", f"at most {SLOTS} in the layout columns")])
        per = self._evaluator.per_ciphertext
        needed = self._evaluator.width if head.layout == "columns" else -(-head.rows // per)
        if count != needed:
            said = f"{head.rows} rows in the layout {head.layout} are {needed} ciphertexts, got {count}"
            raise invalid([("(ciphertexts)", said)])

    def _caller(self, request: Request, key: str) -> str:
        holder = request.options.holder
        return f"holder {holder.name}" if holder else f"key {key}"


class TabularRuntime(RowRuntime):
    """Rows with features given or looked up, and encrypted ones where that is switched on."""

    def __init__(self, modality: Modality, open_lookup: OpenLookup = open_lookup) -> None:
        super().__init__(modality, open_lookup=open_lookup)
        self.encrypted: EncryptedModel | None = None

    async def start(self, settings: ServiceSettings | None = None) -> None:
        """See `Runtime.start`."""
        self.encrypted = None
        await super().start(settings)

    async def open(self, bundle: Bundle) -> Mapping[str, Any]:
        """See `Runtime.open`; a model that cannot answer encrypted rows does not become ready when it is to."""
        said = await super().open(bundle)
        if self.settings.encrypted.enabled:
            self.encrypted = await asyncio.to_thread(EncryptedModel, self, bundle, self._crashed)
        return said

    async def close(self) -> None:
        """See `Runtime.close`."""
        await super().close()
        if self.encrypted is not None:
            await asyncio.to_thread(self.encrypted.close)

    def encrypting(self) -> EncryptedModel:
        """The model, for encrypted rows.

        Raises:
            Problem: 503 while it is not loaded; 404 where this is switched off.
        """
        self.model()
        if self.encrypted is None:
            fix = "fairlead serve MODEL --encrypted; of a release: config.encrypted.enabled: true"
            raise Problem(404, "encrypted-off", "this service answers no encrypted rows", fix=fix)
        return self.encrypted


def _routes(runtime: TabularRuntime) -> list[Route]:
    async def published(request: Request) -> Answer:
        return Answer(runtime.encrypting().published.model_dump_json().encode())

    async def keys(request: Request) -> Answer:
        return await runtime.encrypting().take_keys(request)

    async def score(request: Request) -> Answer:
        return await runtime.encrypting().score(request)

    return [
        Route("/encrypted", {"GET": published}),
        Route("/encrypted/keys", {"POST": keys}),
        Route("/encrypted/score", {"POST": score}),
    ]


def _paths(runtime: TabularRuntime) -> dict[str, Any]:
    """The three paths, where they are switched on."""
    if runtime.encrypted is None:
        return {}
    binary = {MEDIA: {"schema": {"type": "string", "contentEncoding": "binary"}}}
    body = {"required": True, "content": binary}

    def of(summary: str, name: str, media: str, **more: Any) -> dict[str, Any]:
        problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        content = {media: {"schema": {"type": "object"}}} if media != MEDIA else binary
        responses = {
            "200": {"description": "OK", "content": content},
            "default": {"description": "Refused or failed", "content": problem},
        }
        return {"summary": summary, "operationId": name, "responses": responses, **more}

    json = "application/json"
    return {
        "/encrypted": {"get": of("What a client needs to encrypt rows", "encrypted", json)},
        "/encrypted/keys": {"post": of("Keep public keys", "encryptedKeys", json, requestBody=body)},
        "/encrypted/score": {"post": of("Score encrypted rows", "encryptedScore", MEDIA, requestBody=body)},
    }


ENCRYPTED = Api(routes=_routes, busy=("/encrypted/score",), paths=_paths)
