"""What people and items did of late, in the feature store: read for rankers that are told of it, and moved on.

Who is shown a list and clicks it is counted at once, so that the next list knows of it, whichever server makes it: rows
of the online store are changed in place, by the functions that training's history is made by.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from threading import Event, Lock, Thread
from time import monotonic, time_ns
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from contracts.engine import Engine
from contracts.errors import PlatformError
from contracts.ranking_features import windowed
from services.adapters.hot import Answers, HotCopies
from services.feedback.records import Label
from services.logs import log_event
from services.settings import ServiceSettings

_FLUSH_SECONDS, _QUEUED, _SAY_AGAIN = 0.1, 100_000, 10.0
_FAILURES = (PlatformError, sqlite3.Error, OSError)
_Done = tuple[str, str, str, int]  # what somebody did: user, item, kind, microseconds since 1970


class ListWindows:
    """The windows of one model. Safe to share between threads.

    Args:
        plan: of the bundle, see `feature_repo.stores.plan`.  online: address of the store.
        answers: what was shown, until it is clicked.
    """

    def __init__(self, plan: Mapping[str, Any], online: str, answers: Answers) -> None:
        from feature_repo.stores.backend import open_backend
        from feature_repo.stores.packed_rows import Layout
        from feature_repo.stores.reader import OnlineReader

        self._plan, self._answers = plan, answers
        self._reader, self._backend = OnlineReader(plan, online), open_backend(online, writing=True)
        self._views = {view["join_keys"][0]["name"]: view for view in plan["views"]}
        self._layouts = {side: Layout(view["fields"]) for side, view in self._views.items()}
        self._queue: deque[_Done] = deque(maxlen=_QUEUED)
        self._writing, self._closed, self._said = Lock(), Event(), -_SAY_AGAIN
        self.read("?", ["?"], refuse=True)
        self._thread = Thread(target=self._write_loop, name="list-windows", daemon=True)
        self._thread.start()

    def read(
        self, user: str, items: Sequence[str], *, refuse: bool = False
    ) -> tuple[list[str], NDArray[np.float32]] | None:
        """What a person clicked of late, the latest last, and the features of items, by one read; None where the store
        does not answer.

        Raises:
            PlatformError: the store does not answer, and `refuse` is set.
        """
        from feature_repo.stores.reader import UNAVAILABLE, apply_transforms
        from feature_repo.transforms.recommend import SEPARATOR

        now, count = datetime.now(UTC).replace(tzinfo=None), len(items)
        try:
            found = self._reader.read_each({"user": [user or "?"], "item": list(items)}, now)
        except _FAILURES as err:
            if refuse:
                raise
            self._failed("list_windows_unavailable", err)
            return None
        person, each = (found[self._views[side]["name"]] for side in ("user", "item"))
        if UNAVAILABLE in person.status[self._views["user"]["name"]]:
            return None
        mine = dict(person.columns)
        clicked = str(mine.pop("user_last_clicks")[0] or "")
        columns = {name: np.repeat(values, count) for name, values in mine.items()}
        columns |= each.columns
        columns["time"] = np.full(count, np.datetime64(now, "us"))
        made = apply_transforms(self._plan, columns)
        return [item for item in clicked.split(SEPARATOR) if item], windowed(made, count)

    def shown(self, identifier: str, user: str, items: Sequence[str]) -> None:
        """Count a list that a person sees, and keep it until it is clicked."""
        self._answers.remember(identifier, orjson.dumps(user))
        at = time_ns() // 1_000
        self._queue.extend((user, item, "views", at) for item in items)

    def learn(self, labels: Sequence[Label]) -> int:
        """Count clicks on lists, now; how many labels were new and of lists that are known.

        Raises:
            PlatformError: the store cannot be written; what was not counted may come again.
        """
        at, done, claimed, count = time_ns() // 1_000, [], [], 0
        for label in labels:
            data = self._answers.recall(label.id)
            items = [item for item in label.label if data is not None and self._answers.claim(label.id, item)]
            claimed += [(label.id, item) for item in items]
            done += [(orjson.loads(data or b'""'), item, "clicks", at) for item in items]
            count += bool(items)
        try:
            self._write(done)
        except _FAILURES as err:
            for identifier, item in claimed:
                self._answers.release(identifier, item)
            raise _unavailable(err) from err
        return count

    def close(self) -> None:
        """Write what is queued, and end the thread."""
        self._closed.set()
        self._thread.join(timeout=5)
        self._answers.close()
        self._reader.close()
        self._backend.close()

    def _write_loop(self) -> None:
        ended = False
        while not ended:
            ended = self._closed.wait(_FLUSH_SECONDS)
            done = [self._queue.popleft() for _ in range(len(self._queue))]
            try:
                self._write(done)
            except _FAILURES as err:
                self._failed("list_windows_not_written", err)

    def _write(self, done: Sequence[_Done]) -> None:
        """Move the rows of all whom something is about on."""
        if not done:
            return
        from feature_repo.stores.keys import serialise_keys

        at = max(moment for *_, moment in done)
        with self._writing:
            for side, view in self._views.items():
                counts: dict[str, Counter[str]] = defaultdict(Counter)
                clicks: dict[str, list[str]] = defaultdict(list)
                for user, item, kind, _ in done:
                    if name := user if side == "user" else item:
                        counts[name][kind] += 1
                        if kind == "clicks":
                            clicks[name].append(item)
                if not counts:
                    continue
                names = list(counts)
                keys = serialise_keys(view["join_keys"], {side: names})
                of = dict(zip(keys, names, strict=True))
                change = partial(self._changed, side, of, counts, clicks, at)
                project, ttl = self._plan["project"], view["ttl_seconds"]
                self._backend.update(project, view["name"], self._layouts[side], keys, change, ttl)

    def _changed(
        self,
        side: str,
        of: Mapping[bytes, str],
        counts: Mapping[str, Mapping[str, int]],
        clicks: Mapping[str, list[str]],
        at: int,
        keys: Sequence[bytes],
        rows: Sequence[bytes | None],
    ) -> list[bytes]:
        """The rows of some keys after what was done."""
        from feature_repo.stores.packed_rows import NEVER, to_bytes
        from feature_repo.transforms.recommend import clicked, moved

        layout, made = self._layouts[side], list[bytes]()
        for key, row in zip(keys, rows, strict=True):
            name, state = of[key], self._state(side, row)
            new: dict[str, Any] = moved(side, state, counts[name], at)
            if side == "user":
                mine = clicks.get(name, [])
                new["user_last_clicks"] = clicked(state.get("user_last_clicks"), mine)
                new["user_last_click"] = at / 1e6 if mine else state.get("user_last_click")
            nulls = {each: np.array([value is None]) for each, value in new.items()}
            texts = {"user_last_clicks"}
            values: dict[str, Any] = {
                each: [to_bytes(value, "string")] if each in texts else np.array([value or 0.0])
                for each, value in new.items()
            }
            moment = round(new[f"{side}_last"] * 1e6) + 1
            made += layout.encode(values, nulls, np.array([moment]), np.array([NEVER]))
        return made

    def _state(self, side: str, row: bytes | None) -> dict[str, Any]:
        """A row as values by name; nothing of one that another schema wrote."""
        layout = self._layouts[side]
        rows = layout.decode([row])
        if row is None or rows is None:
            return {}
        missing = layout.nulls(rows)[0]
        return {
            name: None if missing[at] else layout.values(rows, name)[0] for at, (name, _) in enumerate(layout.fields)
        }

    def _failed(self, event: str, err: Exception) -> None:
        if monotonic() - self._said >= _SAY_AGAIN:
            self._said = monotonic()
            log_event(event, logging.WARNING, error=f"{type(err).__name__}: {err}")


def _unavailable(err: Exception) -> PlatformError:
    if isinstance(err, PlatformError):
        return err
    return PlatformError(
        "the feature store cannot be written", detail=str(err), fix="send the labels again", code="online_unavailable"
    )


def open_windows(engine: Engine, settings: ServiceSettings) -> ListWindows | None:
    """The feature store of a model whose ranker is told of it; None of others, and where the service knows of no store:
    the ranker is then told what was so when its training ended.

    Raises:
        PlatformError: the store cannot be read.
    """
    given: Any = engine
    ranker = given.model.ranker
    if ranker is None or not ranker.windows or not settings.online or not given.plan:
        return None
    from feature_repo.stores.backend import is_redis

    name = f"{settings.name or 'recommend'}-windows"
    hot = HotCopies(settings.online, name, "") if is_redis(settings.online) else None
    return ListWindows(given.plan, settings.online, Answers(hot, settings.adapters.wait_seconds))
