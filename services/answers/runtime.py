"""The runtime of an index of documents: who writes answers, and where vectors are searched."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from contracts.bundle import Bundle
from contracts.errors import PlatformError
from contracts.problems.answering import SEPARATOR, listed
from services.answers.writer import Writer, open_writer
from services.errors import Problem
from services.model.request_schema import Batch
from services.model.rows import Rows
from services.model.runtime import RowRuntime
from services.request_options import RequestOptions
from services.server.lifecycle import Modality


class AnswersRuntime(RowRuntime):
    """One served index of documents.

    Attributes:
        writer: writes answers of passages; None: they are quoted.
        vectors: where they are searched, if not in the bundle's own.
    """

    writer: Writer | None = None
    vectors: Any = None

    def __init__(self, modality: Modality) -> None:
        super().__init__(modality, rows=Rows)

    async def open(self, bundle: Bundle) -> Mapping[str, Any]:
        """Load the index, see `RowRuntime.open`, and whoever writes answers."""
        said = await super().open(bundle)
        if self.settings.vector_store:
            await asyncio.to_thread(self._store, bundle)
        self.writer = await asyncio.to_thread(open_writer, self.settings.writer)
        return {**said, "written_by": self.writer.model if self.writer else ""}

    def _store(self, bundle: Bundle) -> None:
        """Search vectors in a database from now on.

        Raises:
            PlatformError: it cannot be reached, or the model has no vectors.
        """
        from contracts.vector_stores import PgVectors
        from services.answers.redis_vectors import RedisVectors

        address = self.settings.vector_store
        kind = RedisVectors if address.startswith("redis") else PgVectors
        engine: Any = self.model().engine
        if engine.model.vectors is None:
            raise PlatformError(
                "vector_store names a database, and this model has no vectors",
                fix="leave vector_store empty, or train with vectors.kind terms or onnx",
                code="bad_settings",
            )
        found = engine.model
        self.vectors = kind(address, bundle.digest, found.vectors, found.access)
        engine.model = replace(found, elsewhere=self.vectors)

    def admit(self, batch: Batch, options: RequestOptions) -> None:
        """Let a key that is bound to labels ask with those only; a row that names none has all of the key's.

        Raises:
            Problem: 403 where a row names another one.
        """
        if options.labels is None:
            return
        asked, own = batch.columns["labels"].astype(object), SEPARATOR.join(sorted(options.labels))
        for row, given in enumerate(asked):
            said = listed(given or "")
            if not options.labels.issuperset(said):
                where = batch.where.format(row=row, name="labels")
                raise Problem(
                    403,
                    "labels-not-allowed",
                    "the API key may not read what these labels open",
                    errors=[(where, "has a label that the key has not")],
                    fix="leave labels out: those of the key hold then",
                )
            if not said:
                asked[row] = own
        batch.columns["labels"] = asked

    async def close(self) -> None:
        """Finish the rows, and end a chat model of our own."""
        await super().close()
        if self.vectors is not None:
            await asyncio.to_thread(self.vectors.close)
        if self.writer is not None:
            await asyncio.to_thread(self.writer.close)
