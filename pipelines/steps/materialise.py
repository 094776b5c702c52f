"""Clean rows to feature history, a Feast registry, a compiled plan, and the newest values in the online store."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.bundle import sha256_file
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.code_version import code_version
from pipelines.io import events
from pipelines.io.files import missing, read_json, write_json, write_text
from pipelines.io.remote import folder_here
from pipelines.plugins import definitions_module
from pipelines.task import Task
from pipelines.tasks import get_task, load_config

_PLAN = "features.json"
_REGISTRY = "registry.db"
_STORE = """\
# Written by the materialise step; `feast -c THIS_FOLDER ...` works on it.
project: {project}
provider: feature_repo.stores.push.CheckedProvider
registry: {{registry_type: file, path: registry.db}}
offline_store: {{type: feature_repo.stores.offline.DuckDBOfflineStore}}
online_store: {{type: feature_repo.stores.online.PackedOnlineStore, address: {online}}}
batch_engine: {{type: feature_repo.stores.engine.PackedEngine}}
entity_key_serialization_version: 3
materialization: {{pull_latest_features: true}}
"""


def materialise(task: str, config: str, clean: str, data_version: str, endpoints: str, out: str) -> dict[str, Any]:
    """Write the feature history of a dataset version once, and its newest values to the online store.

    Args:
        config: of the run. Features depend on the data only, so that all recipes of a task share them, unless the task
            has `history_config`.
        clean: folder of validated parts.  endpoints: JSON of contracts.endpoints.Endpoints.
        out: gets ``{"path": folder of the history, "plan": {...}}``, or {} of a recipe that uses no features.

    Returns:
        path, views, the moment up to which values are online, and which rows could not go online.

    Raises:
        PlatformError: the task's feature service is not defined, or the online store cannot be written.
    """
    found = get_task(task)
    if found.feature_service is None:
        raise PlatformError(
            f"task {task} has no features to materialise",
            fix="set feature_service of the task, or leave the step out",
            code="bad_task",
        )
    if found.timestamp is None:
        raise PlatformError(
            f"task {task} has features but no timestamp",
            fix="name the column with the moment of an event",
            code="bad_task",
        )
    told, about, beside = getattr(found, "history_config", None), {}, {}
    if told is not None:
        settings = load_config(found, config)
        if (about := told(settings)) is None:
            write_json(Path(out), {})
            return {"path": "", "views": [], "known_until": "", "left_out": []}
        beside = {"config": settings}
    ends = Endpoints.model_validate_json(endpoints)
    report = events.progress("materialise")
    made_of = f"{data_version} {code_version(task)} {_digest(Path(clean))}{json.dumps(about) if about else ''}"
    key = hashlib.sha256(made_of.encode()).hexdigest()[:8]
    name = f"{data_version}-{key}"
    address, online = storage.join(ends.uri("features"), task, name), ends.uri("online")
    if not storage.exists(storage.join(address, _PLAN)):
        folder = ends.scratch("features", task, name) if storage.is_remote(address) else Path(address)
        if not (folder / _PLAN).exists():
            _write_history(found, Path(clean), folder, online, report, beside)
        if storage.is_remote(address):
            storage.upload(folder, address, last=_PLAN)
    with folder_here(address, last=_PLAN) as folder:
        plan = read_json(folder / _PLAN)
        report(3, 4, doing="online store")
        left_out = to_online(plan, folder, online, datetime.fromisoformat(plan["known_until"]))
    write_json(Path(out), {"path": address, "plan": plan})
    report(4, 4)
    views = [view["name"] for view in plan["views"]]
    return {"path": address, "views": views, "known_until": plan["known_until"], "left_out": left_out}


def _digest(clean: Path) -> str:
    parts = sorted(clean.glob("part-*.parquet"))
    if not parts:
        raise missing(clean / "part-00000.parquet")
    return " ".join(sha256_file(part) for part in parts)


def _write_history(task: Task, clean: Path, folder: Path, online: str, report: Any, beside: Mapping[str, Any]) -> None:
    """Fill a staging folder and rename it, so that the history is there whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    staging.chmod(0o755)
    try:
        report(0, 4, doing="feature history")
        task.write_features(
            clean, staging, lambda done, total, **_: report(2 * done / total, 4, doing="feature history"), **beside
        )
        report(2, 4, doing="registry")
        write_text(staging / "feature_store.yaml", _STORE.format(project=task.name, online=json.dumps(online)))
        plan = _register(task, staging, online)
        plan["known_until"] = _last_moment(clean, str(task.timestamp)).isoformat()
        write_json(staging / _PLAN, plan)
        with contextlib.suppress(OSError):  # another run was first: its folder has the same content
            os.replace(staging, folder)
        if not (folder / _PLAN).exists():
            raise PlatformError(f"could not write the feature history: {folder}", fix="check space and rights there")
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _last_moment(clean: Path, column: str) -> datetime:
    """Just after the last event: what is known then is what the first request after the data meets."""
    from pyarrow import compute, dataset

    table = dataset.dataset([str(p) for p in sorted(clean.glob("part-*.parquet"))]).to_table(columns=[column])
    last: datetime = compute.max(table[column]).as_py()
    return (last if last.tzinfo else last.replace(tzinfo=UTC)) + timedelta(microseconds=1)


def _register(task: Task, folder: Path, online: str) -> dict[str, Any]:
    from feature_repo.stores.plan import compile_plan

    with _quiet():
        objects = definitions(task.name)
        with _locked(online):  # applying creates the tables of the online store
            store = _store(task.name, folder, folder / _REGISTRY, online)
            store.apply(objects)
            names = {item.name for item in store.list_feature_services()}
            if task.feature_service not in names:
                raise PlatformError(
                    f"feature service {task.feature_service} is not defined in {definitions_module(task.name)}",
                    detail=f"defined there: {', '.join(sorted(names)) or 'none'}",
                    fix="define it, or correct feature_service of the task",
                    code="bad_feature_view",
                )
            return compile_plan(store, str(task.feature_service), str(task.timestamp))


def to_online(
    plan: dict[str, Any],
    folder: Path,
    online: str,
    until: datetime,
    since: datetime = datetime(1970, 1, 1, tzinfo=UTC),
    only: list[str] | None = None,
) -> list[str]:
    """Bring the newest rows of an interval online; rows that are newer there already stay.

    Feast notes intervals in its registry, so it gets a copy of the immutable one.

    Args:
        folder: of the history, as `materialise` wrote it.  online: address of the store.
        only: some views of the plan; None for all.

    Returns:
        which rows of the history could not go online, in words.
    """
    with _quiet(), tempfile.TemporaryDirectory() as scratch, _locked(online):
        registry = Path(scratch) / _REGISTRY
        shutil.copyfile(folder / _REGISTRY, registry)
        store = _store(plan["project"], folder, registry, online)
        views = [view["name"] for view in plan["views"] if only is None or view["name"] in only]
        # A store may be new: tables are made by `update`, which `apply` calls only for changes.
        store._get_provider().update_infra(
            project=plan["project"],
            tables_to_delete=[],
            tables_to_keep=[store.get_feature_view(name) for name in views],
            entities_to_delete=[],
            entities_to_keep=[],
            partial=True,
        )
        if views:
            store.materialize(since, until, feature_views=views)
        return [str(some) for some in store._get_provider().batch_engine.left_out]


def definitions(task: str) -> list[Any]:
    """Every Feast object that the module with the task's feature definitions has or imports.

    Raises:
        PlatformError: there is no such module.
    """
    import feast

    module = definitions_module(task)
    if importlib.util.find_spec(module) is None:
        raise PlatformError(
            f"task {task} names a feature service but {module} does not exist",
            fix="write it, or set feature_service to None",
            code="bad_feature_view",
        )
    kinds = (feast.Entity, feast.FeatureView, feast.OnDemandFeatureView, feast.FeatureService)
    found = {id(value): value for value in vars(importlib.import_module(module)).values() if isinstance(value, kinds)}
    return list(found.values())


def _store(project: str, folder: Path, registry: Path, online: str) -> Any:
    from feast import RepoConfig

    from feature_repo.stores.push import CheckedStore

    config = RepoConfig(
        project=project,
        provider="feature_repo.stores.push.CheckedProvider",
        registry={"registry_type": "file", "path": str(registry)},
        offline_store={"type": "feature_repo.stores.offline.DuckDBOfflineStore"},
        online_store={"type": "feature_repo.stores.online.PackedOnlineStore", "address": online},
        batch_engine={"type": "feature_repo.stores.engine.PackedEngine"},
        entity_key_serialization_version=3,
        materialization={"pull_latest_features": True},
        repo_path=folder,
    )
    return CheckedStore(config=config)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Import Feast, and send what it prints away from stdout, which carries events."""
    from feature_repo.stores.fast_import import import_feast

    import_feast()
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _locked(online: str) -> Iterator[None]:
    """One writer of a file at a time; the lock ends with the process, so a killed run blocks nobody. A server needs
    none: it compares moments itself."""
    if "://" in online:
        yield
        return
    file = Path(online)
    file.parent.mkdir(parents=True, exist_ok=True)
    with (file.parent / f".{file.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
