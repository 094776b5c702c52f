"""Feast's SQLite online store, with two promises more: older rows never replace newer ones, and moments are UTC.

Feast's own writes whatever comes last and takes a naive UTC time for local time. Layout and reading stay Feast's, so
its SDK and command line work on the same file; `reader.py` reads it without Feast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from feature_repo.stores.join import quote

Rows = list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]]


class GuardedSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """`path` is the SQLite file."""

    type: Literal["feature_repo.stores.online.GuardedSqliteOnlineStore"] = (  # type: ignore[assignment]
        "feature_repo.stores.online.GuardedSqliteOnlineStore"
    )


class GuardedSqliteOnlineStore(SqliteOnlineStore):
    """See the module's docstring."""

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: Rows, progress: Callable[[int], Any] | None
    ) -> None:
        """Write the rows of `data` that are not older than what is there, in one transaction."""
        connection = self._get_conn(config)
        connection.execute("PRAGMA busy_timeout=30000")
        name = quote(compute_table_id(config.project, table, config.registry.enable_online_feature_view_versioning))
        with connection:
            connection.executemany(
                f"""INSERT INTO {name} (entity_key, feature_name, value, event_ts, created_ts) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (entity_key, feature_name) DO UPDATE
                SET value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts
                WHERE excluded.event_ts >= event_ts""",
                _cells(data),
            )
        if progress:
            progress(len(data))


def _cells(data: Rows) -> Iterator[tuple[bytes, str, bytes, int, int | None]]:
    for key, values, event, created in data:
        packed = serialize_entity_key(key, entity_key_serialization_version=3)
        moment, made = _epoch(event), _epoch(created) if created else None
        for name, value in values.items():
            yield packed, name, value.SerializeToString(), moment, made


def _epoch(moment: datetime) -> int:
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
