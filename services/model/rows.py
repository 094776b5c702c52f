"""Rows of requests on their way to the engine: what a modality does with them, and the other bodies that it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contracts.decoding import Sampling
from contracts.engine import Engine
from services.errors import Problem
from services.model.columns import Column
from services.model.request_schema import Batch, RequestSchema
from services.settings import ServiceSettings


class Rows:
    """Rows that the engine takes as they are; a modality overrides what is its own.

    Attributes:
        threads: that prepare rows beside the loop; 0 when there is nothing to prepare.
        waits: whether the engine asks others, so that it is not called on the loop.
        sampling: what holds for answers that are drawn by chance, unless a request says more; None: none can be.
    """

    threads = 0
    waits = False
    sampling: Sampling | None = None
    learn: Callable[[Sequence[Any]], int] | None = None  # from labels; None: these rows learn nothing

    def __init__(self, engine: Engine, settings: ServiceSettings) -> None:
        self.engine, self.settings = engine, settings

    def prepared(self, batch: Batch) -> Batch:
        """The rows in the form that `predict` takes; called on any thread.

        Raises:
            Problem: 422, naming the values that cannot be prepared.
        """
        return batch

    def is_quick(self, batch: Batch) -> bool:
        """Whether preparing these rows takes less than handing them to a thread."""
        return True

    def predict(self, inputs: Mapping[str, Column], prepared: Sequence[Any], **beside: Any) -> Any:
        """The engine's answers to all rows; `beside` goes to the engine, see `services.adapters.layer.Layer.apply`."""
        return self.engine.predict(inputs, **beside)

    def close(self) -> None:
        """Give back what was opened; labels that came are kept."""

    def padded(self, lengths: Sequence[int]) -> int:
        """How much the engine computes for rows of these lengths, padding included."""
        return sum(lengths)

    def reads(self, media: str) -> bool:
        """Whether a body of this media type is a request, besides JSON."""
        return False

    def read(self, schema: RequestSchema, content_type: str, body: bytes) -> Batch:
        """The checked rows of a body for which `reads` holds.

        Raises:
            Problem: 415 where only JSON is read; 413 and 422.
        """
        raise Problem(415, "not-json", "the request must be JSON", fix="send the header content-type: application/json")

    def bodies(self, schema: RequestSchema) -> dict[str, Any]:
        """The media types besides JSON, as the OpenAPI document describes them."""
        return {}


def check_count(rows: int, limit: int) -> None:
    """Refuse a request with more rows than `limit`.

    Raises:
        Problem: 413.
    """
    if rows > limit:
        detail = f"got {rows}, at most {limit} are accepted"
        raise Problem(413, "too-many-rows", "too many instances", detail)
