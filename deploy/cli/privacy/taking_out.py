"""One person taken out of all that is kept of one task; each place can be done again."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError
from deploy.cli.profiles.audit_record import note
from pipelines.data import forgotten

if TYPE_CHECKING:
    from contracts.bundle import BundleDocument
    from contracts.endpoints import Endpoints
    from contracts.registry import ModelVersion
    from pipelines.task import Task
    from services.settings import AdapterSettings

_PLAN = "features.json"


@dataclass(frozen=True, kw_only=True)
class Person:
    """Whose rows of a task: those whose `column` is `text`, a canonical key."""

    task: Task
    column: str
    text: str


@dataclass(kw_only=True)
class Done:
    """What was found of a person in a task, and taken out unless it was a dry run: rows, entries and files.

    versions: of the data: name, rows, and by what it was replaced.  models: versions trained with rows of theirs.
    """

    task: str
    column: str
    versions: list[dict[str, Any]] = field(default_factory=list)
    documents: int = 0
    features: int = 0
    online: int = 0
    predictions: int = 0
    labels: int = 0
    annotations: int = 0
    adapters: int = 0
    steps: int = 0
    models: list[dict[str, Any]] = field(default_factory=list)

    @property
    def found(self) -> bool:
        """Whether there was anything."""
        counts = self.documents + self.features + self.online + self.predictions + self.adapters + self.steps
        return bool(self.versions or counts or self.models)


@dataclass(frozen=True, kw_only=True)
class Log:
    """Where a model may have learned of the person while it answered: its log, and its adapters."""

    model: str
    salt: str
    adapters: AdapterSettings | None


class Forgetting:
    """One person in one task."""

    def __init__(self, endpoints: Endpoints, person: Person, logs: list[Log], dry_run: bool) -> None:
        self._ends, self._person, self._logs, self._dry = endpoints, person, logs, dry_run
        self._data, self._task = endpoints.uri("data"), person.task.name
        self._texts = {person.text}
        self._affected: set[str] = set()
        self._done = Done(task=self._task, column=person.column)

    def run(self) -> Done:
        """Look, and take out."""
        column, text = self._person.column, self._person.text
        versions = forgotten.versions(self._data, self._task)
        for version in versions:
            self._texts |= version.texts(column, text)
        rows = {version.name: forgotten.rows_of(version, column, text) for version in versions}
        here = [version for version in versions if rows[version.name]]
        self._affected = {version.name for version in here} | self._before()
        entry = None
        if not self._dry:
            entry = forgotten.remember(self._data, self._task, column, text, self._affected)
        for version in here:
            said: dict[str, Any] = {"version": version.name, "rows": rows[version.name]}
            if not self._dry:
                said["replaced_by"] = forgotten.rewrite(self._data, self._task, version, column, text)
                forgotten.remove(version)
            self._done.versions.append(said)
        if not self._dry:
            there = {version.name for version in forgotten.versions(self._data, self._task)}
            for name in self._affected - there:  # what a call that was ended left of them
                forgotten.remove_all(storage.join(self._data, self._task, name))
        self._documents()
        self._features_and_online()
        self._log()
        if not self._dry:
            forgotten.name_sources(self._data, self._task)
            # What was read of a collection that grows, and what killed runs began to read.
            forgotten.remove_all(storage.join(self._data, self._task, ".collections"))
            forgotten.remove_all(storage.join(self._data, self._task, ".staging"))
        self._steps()
        self._models()
        if entry is not None:
            said = {**asdict(self._done), "entity": entry.hash, "models": [one["ref"] for one in self._done.models]}
            note(self._ends, "forget_entity", self._task, evidence=said)
        return self._done

    def _documents(self) -> None:
        """Documents of the person in the document store, and by which version the others are known from now on."""
        if self._ends.documents:
            from pipelines.data.document_store import DocumentStore

            replaced = {one["version"]: one.get("replaced_by", "") for one in self._done.versions}
            store = DocumentStore(self._ends.documents, self._task)
            self._done.documents += store.forget(self._person.column, self._texts, replaced, dry_run=self._dry)

    def _before(self) -> set[str]:
        """Versions that had rows of the person when they were to be forgotten before."""
        known = forgotten.Forgotten.read(self._data, self._task)
        name = forgotten.hashed(known.key, self._person.column, self._person.text) if known.entries else ""
        return {version for one in known.entries if one.hash == name for version in one.versions}

    def _features_and_online(self) -> None:
        root = storage.join(self._ends.uri("features"), self._task)
        plans: dict[tuple[str, str], Any] = {}
        for name in storage.list_names(root):
            address = storage.join(root, name)
            if name.startswith(".") or not storage.exists(storage.join(address, _PLAN)):
                continue
            plan = json.loads(storage.read_bytes(storage.join(address, _PLAN)))
            for view in plan["views"]:
                if self._person.column in {key["name"] for key in view["join_keys"]}:
                    plans[plan["project"], view["name"]] = view
                    self._done.features += self._history(address, view)
        if plans:
            self._done.online = sum(self._online(project, view) for (project, _), view in plans.items())

    def _history(self, address: str, view: Any) -> int:
        column = view.get("columns", {}).get(self._person.column, self._person.column)
        source = view["source"] if "://" in view["source"] else storage.join(address, view["source"])
        rows = 0
        for file in storage.listing(source):
            if not file.uri.endswith(".parquet"):
                continue
            if self._dry:
                with forgotten.file_here(file.uri) as here:
                    rows += forgotten.matching(here, column, self._texts)
            else:
                rows += forgotten.take_out(file.uri, column, self._texts)
        return rows

    def _online(self, project: str, view: Any) -> int:
        """Rows of the online store whose key has the person's."""
        from feature_repo.stores.backend import open_backend
        from feature_repo.stores.keys import deserialise_key, serialise_keys

        address, name, column = self._ends.uri("online"), view["name"], self._person.column
        if "://" not in address and not Path(address).exists():
            return 0
        backend = open_backend(address, writing=True)
        try:
            if not backend.has(project, name):
                return 0
            if len(view["join_keys"]) == 1:
                texts = sorted(self._texts) if view["join_keys"][0]["dtype"] == "string" else [self._person.text]
                keys = serialise_keys(view["join_keys"], {column: texts})
                keys = [key for key, row in zip(keys, backend.fetch(project, [(name, keys)])[0], strict=True) if row]
            else:
                keys = [key for key in backend.keys(project, name) if str(deserialise_key(key)[column]) in self._texts]
            if keys and not self._dry:
                backend.delete(project, name, keys)
            return len(keys)
        finally:
            backend.close()

    def _log(self) -> None:
        from services.adapters.forgetting import forget_adapters
        from services.feedback import forgetting
        from services.feedback.layout import models

        folder = self._ends.uri("predictions")
        logged = set(models(folder))
        for one in self._logs:
            for text in sorted(self._texts):
                keys = {self._person.column: text}
                if one.model in logged and self._dry:
                    ids = forgetting.ids(folder, one.model, keys, one.salt)
                    self._done.predictions += len(ids)
                    self._done.annotations += forgetting.annotated(folder, one.model, ids)
                    self._annotations(one.model, ids)
                elif one.model in logged:
                    annotated = functools.partial(self._annotations, one.model)
                    removed = forgetting.forget(folder, one.model, keys, one.salt, annotated)
                    self._done.predictions += removed.predictions
                    self._done.labels += removed.labels
                    self._done.annotations += removed.annotations
                if one.adapters is not None:
                    found = forget_adapters(one.adapters, one.model, text, one.salt, dry_run=self._dry)
                    self._done.adapters += found

    def _annotations(self, model: str, ids: set[str]) -> None:
        """What people said of the person's predictions."""
        if self._ends.documents:
            from services.feedback.annotation_store import Annotations

            kept = Annotations(self._ends.documents, model)
            self._done.documents += kept.count(ids) if self._dry else kept.remove(ids)

    def _steps(self) -> None:
        """Entries of the cache of steps that were made of an affected version, or have rows of the person."""
        for root in (storage.join(self._data, ".steps"), str(self._ends.scratch("cache", "steps"))):
            for step in storage.list_names(root):
                for key in [] if step.startswith(".") else storage.list_names(storage.join(root, step)):
                    place = storage.join(root, step, key)
                    if self._is_of(place):
                        self._done.steps += 1
                        if not self._dry:
                            storage.remove(storage.join(place, "result.json"))
                            forgotten.remove_all(place)

    def _is_of(self, place: str) -> bool:
        for file in storage.listing(place):
            if file.uri.endswith(".parquet"):
                with forgotten.file_here(file.uri) as here:
                    if forgotten.matching(here, self._person.column, self._texts):
                        return True
            elif file.uri.endswith((".json", "/out")):
                content = storage.read_bytes(file.uri)
                if any(version.encode() in content for version in self._affected):
                    return True
        return False

    def _models(self) -> None:
        from contracts.registry import Registry

        registry = Registry(self._ends) if self._affected else None
        for name in registry.names() if registry else []:
            for version in registry.versions(name) if registry else []:
                document = document_of(version)
                if document and document.task == self._task and document.lineage.data_version in self._affected:
                    said = {"aliases": list(version.aliases), "data_version": document.lineage.data_version}
                    self._done.models.append({"ref": f"{name}:{version.version}", **said})


def document_of(version: ModelVersion) -> BundleDocument | None:
    """What a version's bundle says; None where it is not there any more."""
    from contracts.bundle import DOCUMENT, parse_document

    try:
        return parse_document(storage.read_bytes(storage.join(version.path, DOCUMENT)), version.path)
    except PlatformError as err:
        if err.code != "not_found":
            raise
        return None
