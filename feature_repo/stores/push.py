"""Pushing rows to two stores as one write: all is checked for both, then all is written.

Feast writes to the one store and then finds that the other one refuses. ``provider: feature_repo.stores.push.
CheckedProvider`` gives both stores the same rows, typed as the feature view says; `CheckedStore` is Feast's store whose
`push` looks at both stores before it writes to either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
from feast import FeatureStore, FeatureView, OnDemandFeatureView
from feast.data_source import PushMode
from feast.infra.passthrough_provider import PassthroughProvider

from contracts.errors import PlatformError
from feature_repo.stores.arrow_rows import CREATED, EVENT, cast_feature, pack_batch
from feature_repo.stores.keys import serialise_keys
from feature_repo.stores.offline import DuckDBOfflineStore
from feature_repo.stores.online import PackedOnlineStore
from feature_repo.stores.packed_rows import Layout
from feature_repo.stores.plan import compile_view
from feature_repo.stores.pushed_rows import checked_rows


class CheckedProvider(PassthroughProvider):
    """Feast's provider, which writes online what `pushed_rows.py` has checked: Feast's own messages cut numbers."""

    def ingest_df(self, feature_view: Any, df: pd.DataFrame, field_mapping: dict[str, str] | None = None) -> None:
        """Write rows online, whole or not at all."""
        if isinstance(feature_view, OnDemandFeatureView) or not isinstance(self.online_store, PackedOnlineStore):
            super().ingest_df(feature_view, df, field_mapping)
            return
        self._to_online(feature_view, checked_rows(self.repo_config, feature_view, df))

    async def ingest_df_async(
        self, feature_view: Any, df: pd.DataFrame, field_mapping: dict[str, str] | None = None
    ) -> None:
        """As `ingest_df`."""
        self.ingest_df(feature_view, df, field_mapping)

    def ingest_df_to_offline_store(self, feature_view: FeatureView, table: pa.Table) -> None:
        """Append rows to the view's source, whole or not at all."""
        self.offline_write_batch(self.repo_config, feature_view, table, None)  # Feast would rename columns before

    def _to_online(self, view: FeatureView, table: pa.Table) -> None:
        if not table.num_rows:
            return
        compiled = compile_view(view)
        named = {theirs: mine for mine, theirs in compiled["columns"].items()}
        event = table[compiled["timestamp_field"]].cast(pa.int64())
        created = (
            table[compiled["created_field"]].cast(pa.int64())
            if compiled["created_field"] in table.schema.names
            else None
        )
        table = table.rename_columns([named.get(name, name) for name in table.column_names])
        keys = {key["name"]: table[key["name"]].to_pylist() for key in compiled["join_keys"]}
        layout = Layout(compiled["fields"])
        table = table.select([field["name"] for field in compiled["fields"]]).append_column(EVENT, event)
        if created is not None:
            table = table.append_column(CREATED, created)
        moments, rows = pack_batch(layout, table.combine_chunks().to_batches()[0])
        encoded = serialise_keys(compiled["join_keys"], keys)
        self.online_store.write_rows(self.repo_config, view, layout, encoded, rows, int(moments.max()))


class CheckedStore(FeatureStore):
    """Feast's store, with a `push` that is one write."""

    def push(
        self,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,
        to: PushMode = PushMode.ONLINE,
        transform_on_write: bool = True,
    ) -> None:
        """Check the rows for every view and store, then write them.

        Raises:
            PlatformError: a row or a store refuses, and nothing was written; or writing failed: what is in which store.
        """
        found: list[Any] = list(self._fvs_for_push_source_or_raise(push_source_name, allow_registry_cache))
        views = sorted(found, key=lambda view: str(view.name))
        online, offline = to != PushMode.OFFLINE, to != PushMode.ONLINE
        provider = self._get_provider()
        if isinstance(provider, CheckedProvider):
            for view in views:
                table = checked_rows(self.config, view, df)
                if offline:
                    self._check_source(view, table)
        writes: list[tuple[str, Callable[[], None]]] = []
        if online:
            writes += [(f"{view.name} online", self._online(view, df, allow_registry_cache)) for view in views]
        if offline:
            writes += [(f"{view.name} offline", self._offline(view, df, allow_registry_cache)) for view in views]
        done: list[str] = []
        for name, write in writes:
            try:
                write()
            except Exception as err:
                raise _half(name, done, [other for other, _ in writes[len(done) + 1 :]], err) from err
            done.append(name)
        if online and views:
            self._precompute_for_push(views[0].name, df)

    async def push_async(
        self,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,
        to: PushMode = PushMode.ONLINE,
        **kwargs: Any,
    ) -> None:
        """As `push`."""
        self.push(push_source_name, df, allow_registry_cache, to, **kwargs)

    def _online(self, view: Any, df: pd.DataFrame, cached: bool) -> Callable[[], None]:
        def write() -> None:  # `write_to_online_store` leaves out, with a warning, what `write_to_offline_store` takes
            found, rows = self._get_feature_view_and_df_for_online_write(view.name, df, allow_registry_cache=cached)
            self._get_provider().ingest_df(found, rows)

        return write

    def _offline(self, view: Any, df: pd.DataFrame, cached: bool) -> Callable[[], None]:
        return lambda: self.write_to_offline_store(view.name, _plain(df), allow_registry_cache=cached)

    def _check_source(self, view: FeatureView, table: pa.Table) -> None:
        if not isinstance(self._get_provider().offline_store, DuckDBOfflineStore):
            return
        known = DuckDBOfflineStore.appendable(self.config, view)
        if known is None:
            return
        if different := set(known.names) ^ set(table.column_names):
            raise PlatformError(
                f"the rows and the source of feature view {view.name} have different columns",
                detail=f"in one of them only: {', '.join(sorted(different))}",
                fix=f"give the columns of the source: {', '.join(known.names)}",
                code="bad_push",
                view=view.name,
            )
        for field in known:
            cast_feature(table[field.name], field.name, field.type)


def _half(name: str, done: list[str], after: list[str], err: Exception) -> PlatformError:
    """What is where, when a write failed that nothing spoke against."""
    cause = err.headline if isinstance(err, PlatformError) else f"{type(err).__name__}: {err}"
    open_ = [name, *after]
    store = name.rpartition(" ")[2]
    mode = {"offline": "OFFLINE", "online": "ONLINE_AND_OFFLINE"}[store]
    return PlatformError(
        f"the rows were not written to {name}",
        detail=f"{cause}; written: {', '.join(done) or 'nothing'}; not written: {', '.join(open_)}",
        fix=f"when the store can be written again, push the same rows once more with to=PushMode.{mode}; rows that are "
        "there already do no harm",
        code="push_failed",
        written=", ".join(done),
        not_written=", ".join(open_),
    )


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of several types as text, since Feast makes Arrow of the frame before anybody else sees it."""
    made = {}
    for name in frame.columns:
        try:
            pa.Array.from_pandas(frame[name])
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            made[name] = frame[name].map(str, na_action="ignore")
    return frame.assign(**made)
