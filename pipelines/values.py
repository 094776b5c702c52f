"""The values of a run: from what it was asked, with the defaults of task and platform for what it was not."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from contracts import storage
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.code_version import code_version
from pipelines.data import register
from pipelines.data.forgotten import Forgotten
from pipelines.data.versions import MANIFEST
from pipelines.evaluation.gate_metrics import check_gate
from pipelines.io.record import RUN, open_record, read_run
from pipelines.io.step_cache import FOLDER
from pipelines.plugins import task_folder
from pipelines.run import Run, new_run_id
from pipelines.search.space import check_search
from pipelines.task import Task, TaskConfig, dump_config
from pipelines.tasks import changed_config, find_recipe, get_task, load_config, recipe_config

ENDPOINTS = "FAIRLEAD_ENDPOINTS"
"""Environment of steps on a cluster: the platform's addresses, as JSON of `Endpoints`."""
# Settings that name what a step reads by itself.
_BESIDE = ("source", "test_source", "valid_source", "other", "pii_labelled", "words")


def values_of(run: Run) -> dict[str, Any]:
    """The values of a run that begins now (`pipelines.steps.calls`), before its steps add to them.

    Raises:
        PlatformError: a dataset version that is not there, or a source that the task's register refuses.
    """
    task, where = get_task(run.task), run.where.resolved()
    config = load_config(task, json.dumps(run.config))
    values = {
        "task": task.name,
        "config": as_document(config),
        "data_config": as_document(data_part(task, config)),
        "train_config": as_document(config.training_part()),
        "endpoints": where.model_dump(),
        "code_version": code_version(task.name),
        "store": store_stamp(task, where, config),
        "forgotten": _forgotten(where, task.name),
        "beside": _beside(as_document(config)),
        "checkpoints": checkpoints(where),
        "steps": storage.join(where.uri("data"), FOLDER),
        "source": run.source,
        "run": run.run_id,
        "promote": run.promote,
        "nonce": run.nonce,
        "hub": where.hub,
        "ledger": where.model_dump() if config.is_private else "",
        "distributed_job": run.distributed_job or "",
    }
    made = values | (known_version(task, where, run.dataset, run.source) if run.workflow == "training" else {})
    register.require(task_folder(task.name), str(made["source"]))
    return made


def _forgotten(where: Endpoints, task: str) -> str:
    """A fingerprint of who is forgotten; where the list cannot be seen, as by a client without the storage's keys, one
    that no cache knows: steps leave out whom they find in it."""
    try:
        return Forgotten.read(where.uri("data"), task).fingerprint("")
    except PlatformError as err:
        if err.code not in ("storage_denied", "storage_unreachable"):
            raise
        return secrets.token_hex(16)


def _beside(config: Mapping[str, Any]) -> str:
    """A fingerprint of the files and folders that steps read by themselves, because settings name them: their sizes and
    when they changed, or S3's mark of their content. "" where there are none; what cannot be seen is like nothing else.
    """
    marks: list[Any] = []
    for key, place in _named(config):
        try:
            marks += [
                [key, place],
                *([one.uri, one.size, one.mark] for one in storage.listing(os.path.expanduser(place))),
            ]
        except PlatformError as err:
            if err.code != "bad_address":  # of a database: its text alone
                return secrets.token_hex(16)
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:32] if marks else ""


def _named(part: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(part, Mapping):
        for name, inner in part.items():
            yield from _named(inner, str(name))
    elif isinstance(part, str) and part and key in _BESIDE:
        yield key, part


def as_document(config: TaskConfig) -> dict[str, Any]:
    """A configuration as a run's document has it."""
    document: dict[str, Any] = json.loads(dump_config(config))
    return document


def endpoints(given: str | Mapping[str, Any], environ: Mapping[str, str]) -> Endpoints:
    """The addresses as given, else the platform's.

    Raises:
        PlatformError: ``code="no_endpoints"``.
    """
    said = given or environ.get(ENDPOINTS, "")
    if not said:
        raise PlatformError(
            "nothing says where data and models are",
            detail=f"the parameter endpoints and the variable {ENDPOINTS} are empty",
            fix="publish the workflows for this platform: fairlead pipelines publish",
            code="no_endpoints",
        )
    return Endpoints.model_validate_json(said) if isinstance(said, str) else Endpoints.model_validate(said)


def chosen_config(
    task: Task, recipe: str, sections: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> TaskConfig:
    """A recipe with `sections` of a configuration in place of its own, and `settings` applied, as of --set.

    Raises:
        PlatformError: unknown recipe, unknown key, or a value of the wrong type.
    """
    if not sections:
        return check_search(task, recipe_config(task, recipe or None, settings or {}))
    name = recipe or sections.get("recipe") or task.default_recipe
    base = as_document(recipe_config(task, name))
    config = changed_config(task, {**base, **sections, "recipe": name}, settings or {})
    check_gate(task, config)
    return check_search(task, config)


def run_id(task: str, given: str, environ: Mapping[str, str]) -> str:
    """The name of the run: as given, else what the record of its first step calls it, else a new one."""
    with contextlib.suppress(PlatformError):
        if not given and (record := open_record(environ)):
            given = str((read_run(record.root, record.kfp_run) or {}).get("run_id") or "")
    return given or new_run_id(task, environ.get(RUN, ""))


def known_version(task: Task, where: Endpoints, version: str, source: str) -> dict[str, str]:
    """Manifest, name and source of a dataset version that is there; "" is the only one.

    Raises:
        PlatformError: ``code="unknown_dataset"``, with the versions that are there.
    """
    root = storage.join(where.uri("data"), task.name)
    known = [name for name in storage.list_names(root) if not name.startswith(".")]
    chosen = known[0] if not version and len(known) == 1 else version
    manifest = storage.join(root, chosen, MANIFEST)
    if not chosen or not storage.exists(manifest):
        raise PlatformError(
            f"task {task.name} has no dataset version {version!r}",
            detail=f"versions: {', '.join(known) or 'none'}",
            fix="run the workflow ingestion first, or name one of these as the dataset of the run",
            code="unknown_dataset",
        )
    read = source or str(json.loads(storage.read_bytes(manifest))["source"])
    return {"dataset": manifest, "data_version": chosen, "source": read}


def data_part(task: Task, config: TaskConfig) -> TaskConfig:
    """The configuration with the default's sections that say nothing about the data and, where possible, its recipe.

    Recipes that differ in these only have the same data, and so share the cache of every step before training.
    """
    base = task.recipes[task.default_recipe]
    if type(base) is not type(config):
        base = find_recipe(task, config.recipe) or config
    assert is_dataclass(config)
    names = ("model", "cost", "privacy", "gate", "rollout", "loop", "search", "recipe")
    learned = {field.name: getattr(base, field.name) for field in fields(config) if field.name in names}
    return replace(config, **learned)


def store_stamp(task: Task, where: Endpoints, config: TaskConfig) -> str:
    """Changes when feature history or online store are deleted, so that a cached materialise step runs again."""
    told = getattr(task, "history_config", None)
    if not task.feature_service or (told is not None and told(config) is None):
        return ""
    stamp, online = storage.join(where.uri("features"), ".stamp"), where.uri("online")
    if not storage.exists(stamp) or ("://" not in online and not storage.exists(online)):
        storage.write_bytes(stamp, secrets.token_hex(8).encode())
    return storage.read_bytes(stamp).decode()


def checkpoints(where: Endpoints) -> str:
    """Where trainings keep what they need to go on: on this disk, or in the store, which outlives a pod."""
    data = where.uri("data")
    return storage.join(data, ".checkpoints") if storage.is_remote(data) else str(where.path("cache") / "checkpoints")
