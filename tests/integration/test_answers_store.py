"""Vectors of passages in PostgreSQL; `FAIRLEAD_TEST_PGVECTOR` is the address of one with pgvector, to be written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.answering import Access
from contracts.errors import PlatformError
from contracts.text_vectors import unit
from contracts.vector_stores import PgVectors
from tests.problem_bundles import small_answerer

pytestmark = pytest.mark.integration
ADDRESS = os.environ.get("FAIRLEAD_TEST_PGVECTOR", "")
needs_store = pytest.mark.skipif(not ADDRESS, reason="FAIRLEAD_TEST_PGVECTOR names no database")


def test_a_store_that_is_not_there_is_said_without_its_password() -> None:
    access = Access([[]], np.zeros(2, np.int32))
    with pytest.raises(PlatformError, match=r"no vectors can be kept in postgresql://127\.0\.0\.1/x") as refused:
        PgVectors("postgresql://me:secret@127.0.0.1:9/x", "0" * 12, np.ones((2, 3)), access)
    assert refused.value.code == "no_vector_store"
    assert "secret" not in str(refused.value)


@needs_store
def test_vectors_are_searched_among_what_may_be_read() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(300, 8)))
    access = Access([[], ["a", "b"], ["c"]], rng.integers(0, 3, 300).astype(np.int32))
    digest = f"{np.random.default_rng().integers(1 << 62):016x}"
    store = PgVectors(ADDRESS, digest, vectors, access)
    try:
        again = PgVectors(ADDRESS, digest, vectors[:1], access)  # is there already, and stays as it is
        for labels in ([], ["a"], ["c", "b"], ["'; DROP TABLE x; --"]):
            allowed = access.allowed(labels)
            asked = vectors[7]
            wanted = np.argsort(-np.where(allowed, vectors @ asked, -9), kind="stable")[:10]
            assert again.search(asked, 10, labels).tolist() == wanted.tolist()
        again.close()
        assert len(again.search(vectors[0], 3, [])) == 3, "it comes back"
        again.close()
    finally:
        store._open().execute(f"DROP TABLE {store.table}")
        store.close()


@needs_store
def test_an_answerer_takes_its_vectors_from_there(tmp_path: Path) -> None:
    class Encoder:
        def of(self, texts: Any) -> Any:
            return unit(np.ones((len(texts), 4)))

    model = replace(small_answerer(tmp_path), vectors=unit(np.ones((6, 4))), encoder=Encoder())
    store = PgVectors(ADDRESS, f"{np.random.default_rng().integers(1 << 62):016x}", model.vectors, model.access)
    try:
        there = replace(model, elsewhere=store)
        for labels in ([], ["staff"], ["board"]):
            asked = "How long is the warranty of the Ora pump?"
            assert there.answer(asked, labels) == model.answer(asked, labels)
    finally:
        store._open().execute(f"DROP TABLE {store.table}")
        store.close()
