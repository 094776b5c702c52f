"""Materialising without a Python object per value: ``batch_engine: {type: feature_repo.stores.engine.PackedEngine}``.

The last row of each entity streams from DuckDB in batches, is packed by numpy and written: memory does not grow with
the number of entities. Views with transformations or aggregations, and other stores, go through Feast's local engine.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from feast import FileSource
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.repo_config import FeastConfigBaseModel

from feature_repo.stores.arrow_rows import pack_batch
from feature_repo.stores.keys import serialise_keys
from feature_repo.stores.offline import DuckDBOfflineStore, LeftOut, latest_rows
from feature_repo.stores.online import PackedOnlineStore
from feature_repo.stores.packed_rows import Layout
from feature_repo.stores.plan import compile_view

_LOG = logging.getLogger(__name__)
_ROWS = 20_000  # of a batch


class PackedEngineConfig(FeastConfigBaseModel):
    """No settings."""

    type: Literal["feature_repo.stores.engine.PackedEngine"] = "feature_repo.stores.engine.PackedEngine"


class PackedEngine(LocalComputeEngine):
    """See the module's docstring.

    Attributes:
        left_out: rows of sources that could not go online, of all that was materialised.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.left_out: list[LeftOut] = []

    def _materialize_one(self, registry: Any, task: MaterializationTask, **kwargs: Any) -> LocalMaterializationJob:
        view = task.feature_view
        plain = not getattr(view, "aggregations", None) and not getattr(view, "feature_transformation", None)
        ours = isinstance(self.online_store, PackedOnlineStore) and isinstance(self.offline_store, DuckDBOfflineStore)
        if not (plain and ours and isinstance(view.batch_source, FileSource) and task.only_latest and view.online):
            return super()._materialize_one(registry, task, **kwargs)
        name = f"{view.name}-{task.start_time}-{task.end_time}"
        error: BaseException | None = None
        try:
            for _ in materialise_view(self, task):
                pass
        except Exception as err:  # noqa: BLE001 - Feast's interface hands errors over in the job, and raises them
            error = err
        done = MaterializationJobStatus.ERROR if error else MaterializationJobStatus.SUCCEEDED
        return LocalMaterializationJob(job_id=name, status=done, error=error)


def materialise_view(engine: Any, task: MaterializationTask) -> Iterator[int]:
    """Write the last row of each entity of the task's interval; yields how many entities are done."""
    view, config = task.feature_view, engine.repo_config
    compiled = compile_view(view)
    layout = Layout(compiled["fields"])
    done = 0
    not_after = datetime.now(UTC) + timedelta(seconds=config.online_store.max_future_seconds)
    left_out: list[LeftOut] = []
    batches = latest_rows(
        config,
        compiled,
        task.start_time,
        task.end_time,
        after_start=continues(task),
        rows=_ROWS,
        not_after=not_after,
        left_out=left_out,
    )
    for batch in batches:
        keys = serialise_keys(compiled["join_keys"], {key["name"]: _keys(batch, key) for key in compiled["join_keys"]})
        event, rows = pack_batch(layout, batch)
        engine.online_store.write_rows(config, view, layout, keys, rows, int(np.max(event)))
        done += len(rows)
        yield done
    for some in left_out:
        _LOG.warning("%s", some)
    engine.left_out += left_out


def continues(task: MaterializationTask) -> bool:
    """Whether an earlier interval ended where this one starts: its last moment was materialised then."""
    start: datetime = task.start_time
    return any(end == start for _, end in task.feature_view.materialization_intervals)


def _keys(batch: pa.RecordBatch, key: dict[str, str]) -> list[Any]:
    values: list[Any] = batch.column(key["name"]).to_pylist()
    return values
