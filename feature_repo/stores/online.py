"""A Feast online store of packed rows: ``online_store: {type: feature_repo.stores.online.PackedOnlineStore, ...}``.

Where Feast's own stores differ: older rows never replace newer ones, moments are UTC to the microsecond, a view's time
to live is applied when reading, an unknown entity is NOT_FOUND, and a schema that changed is never misread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from feast import Entity, FeatureService, FeatureView, RepoConfig, utils
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from google.protobuf.timestamp_pb2 import Timestamp

from contracts.errors import PlatformError
from feature_repo.stores.backend import open_backend
from feature_repo.stores.feast_values import pack_messages, to_message
from feature_repo.stores.keys import RefusedKeyError, bad_key, canonical_text
from feature_repo.stores.packed_rows import EPOCH, NEVER, Layout, to_micros
from feature_repo.stores.plan import compile_view, stored_fields
from feature_repo.stores.reader import OnlineReader

Cells = list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]]
_STATUS = {
    "PRESENT": FieldStatus.PRESENT,
    "NOT_FOUND": FieldStatus.NOT_FOUND,
    "OUTSIDE_MAX_AGE": FieldStatus.OUTSIDE_MAX_AGE,
    "NULL": FieldStatus.NULL_VALUE,
    "UNAVAILABLE": FieldStatus.INVALID,
}


class PackedOnlineStoreConfig(FeastConfigBaseModel):
    """`address` is a SQLite file or ``redis://...`` (`redis_address.py`). A row whose event lies more than
    `max_future_seconds` after now is refused: it would keep all later ones out."""

    type: Literal["feature_repo.stores.online.PackedOnlineStore"] = "feature_repo.stores.online.PackedOnlineStore"
    address: str = "data/online.db"
    max_future_seconds: float = 86_400.0


class PackedOnlineStore(OnlineStore):
    """See the module's docstring."""

    def __init__(self) -> None:
        self._backend: Any = None
        self._readers: dict[str, OnlineReader] = {}

    def backend(self, config: RepoConfig) -> Any:
        """The database, opened for writing."""
        if self._backend is None:
            self._backend = open_backend(_address(config), writing=True)
        return self._backend

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: Cells, progress: Callable[[int], Any] | None
    ) -> None:
        """Write the rows of `data` that are not older than what is there."""
        layout = Layout(stored_fields(table))
        keys = _serialised([key for key, _, _, _ in data])
        event = [to_micros(moment) for _, _, moment, _ in data]
        created = [to_micros(made) if made else NEVER for _, _, _, made in data]
        rows = pack_messages(layout, [values for _, values, _, _ in data], event, created)
        self.write_rows(config, table, layout, keys, rows, max(event, default=0))
        if progress:
            progress(len(data))

    def write_rows(
        self, config: RepoConfig, view: FeatureView, layout: Layout, keys: Sequence[bytes], rows: Any, latest: int
    ) -> int:
        """Write packed rows; `latest` is their last event, in microseconds since 1970.

        Returns:
            how many were left out because the store had later ones.

        Raises:
            PlatformError: an event lies in the future, or the store cannot be written.
        """
        ahead = latest / 1e6 - datetime.now(UTC).timestamp()
        if ahead > config.online_store.max_future_seconds:
            raise PlatformError(
                f"feature view {view.name} has an event in the future: {EPOCH + timedelta(microseconds=latest)}",
                detail=f"it is {ahead:.0f} s ahead; it would keep every later row of its entity out",
                fix="correct the clock or the time zone of the source, or set max_future_seconds of the online store",
                code="future_event",
                view=view.name,
            )
        ttl = int(view.ttl.total_seconds()) if view.ttl else 0
        left_out: int = self.backend(config).store(config.project, view.name, layout, keys, rows, ttl)
        return left_out

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """What Feast's interface asks for: a row that is too old is not there."""
        names = requested_features or [field.name for field in table.features]
        cells, stamps = self._cells(config, table, entity_keys, names)
        return [
            (stamp, {name: value for name, (value, _) in zip(names, row, strict=True)} if stamp else None)
            for row, stamp in zip(cells, stamps, strict=True)
        ]

    def _cells(
        self, config: RepoConfig, table: FeatureView, entity_keys: list[EntityKey], names: list[str]
    ) -> tuple[list[list[tuple[Value, Any]]], list[datetime | None]]:
        """(value, status) of each entity and feature, and the moments of the rows that are served."""
        address = _address(config)
        text = f"{table.name} {','.join(names)}"
        if text not in self._readers:
            picked = [field for field in table.features if field.name in names]
            plan = {"project": config.project, "views": [compile_view(table, picked)]}
            self._readers[text] = OnlineReader(plan, address)
        keys = _serialised(entity_keys)
        read = self._readers[text].read_keys([keys])
        types = {field["name"]: field["dtype"] for field in stored_fields(table)}
        columns = [
            [
                (to_message(value, types[name]) if status == "PRESENT" else Value(), _STATUS[status])
                for value, status in zip(read.native(name), read.statuses(name), strict=True)
            ]
            for name in names
        ]
        stamps = [None if event is None else EPOCH + timedelta(microseconds=event) for event in read.events(table.name)]
        return [list(row) for row in zip(*columns, strict=True)], stamps

    def get_online_features(self, config: RepoConfig, features: Any, *given: Any, **named: Any) -> OnlineResponse:
        """As Feast's. A service with ``precompute_online`` is read as any other: its rows are packed already, and Feast
        raises where it finds no vectors."""
        if isinstance(features, FeatureService) and features.precompute_online:
            features = copy(features)
            features.precompute_online = False
        return super().get_online_features(config, features, *given, **named)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[Any],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """As Feast's, with the true status of every value instead of PRESENT for whatever is there."""
        for table, names in grouped_refs:
            values, places, n = utils._get_unique_entities(table, join_key_values, entity_name_to_join_key_map)
            cells, stamps = self._cells(config, table, utils._get_entity_key_protos(values), names)
            order = [0] * n
            for entity, rows in enumerate(places):
                for row in rows:
                    order[row] = entity
            shown = table.projection.name_to_use()
            online_features_response.metadata.feature_names.val.extend(
                f"{shown}__{name}" if full_feature_names else name for name in names
            )
            for at in range(len(names)):
                online_features_response.results.append(
                    GetOnlineFeaturesResponse.FeatureVector(
                        values=[cells[entity][at][0] for entity in order],
                        statuses=[cells[entity][at][1] for entity in order],
                        event_timestamps=[_stamp(stamps[entity]) for entity in order],
                    )
                )

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Forget views that are no more, and make the others known."""
        self._readers.clear()
        backend = self.backend(config)
        for view in tables_to_delete:
            backend.remove(config.project, view.name)
        for view in tables_to_keep:
            backend.prepare(config.project, view.name)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Delete all rows of `tables`."""
        for view in tables:
            self.backend(config).remove(config.project, view.name)


def _serialised(keys: Sequence[EntityKey]) -> list[bytes]:
    """Keys in their canonical form, whatever Feast made of their values."""
    made = []
    for row, given in enumerate(keys):
        key = EntityKey()
        key.CopyFrom(given)
        for name, value in zip(key.join_keys, key.entity_values, strict=True):
            if value.WhichOneof("val") == "string_val":
                try:
                    value.string_val = canonical_text(value.string_val)
                except RefusedKeyError as err:
                    raise bad_key(name, row, str(err)) from err
        made.append(serialize_entity_key(key, entity_key_serialization_version=3))
    return made


def _stamp(moment: datetime | None) -> Timestamp:
    stamp = Timestamp()
    if moment is not None:
        stamp.FromDatetime(moment)
    return stamp


def _address(config: RepoConfig) -> str:
    address: str = config.online_store.address
    if "://" in address or address.startswith("/"):
        return address
    return str(config.repo_path / address) if config.repo_path else address
