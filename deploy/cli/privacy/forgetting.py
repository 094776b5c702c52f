"""``fairlead forget``: a person's rows are taken out of all that the platform keeps; models that had them are named.

The person is on the list of the data first, so that no run reads the rows again; then each place follows, and a call
that was ended is made again: what is done stays done.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError
from deploy.cli.privacy.traces import Traces
from deploy.cli.profiles.audit_record import note
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.profiles.log_salt import salt_of
from deploy.cli.terminal.output import console, emit, table
from pipelines.data import forgotten
from pipelines.tasks import get_task, task_names

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints
    from pipelines.task import Task

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
    features: int = 0
    online: int = 0
    predictions: int = 0
    labels: int = 0
    steps: int = 0
    models: list[dict[str, Any]] = field(default_factory=list)

    @property
    def found(self) -> bool:
        """Whether there was anything."""
        return bool(self.versions or self.features or self.online or self.predictions or self.steps or self.models)


def forget(profile: str, entity: str, task: str, dry_run: bool, as_json: bool) -> None:
    """Take the rows of an entity out, or with `dry_run` say how many there are.

    Raises:
        PlatformError: the entity cannot be told, or not be found in what was masked; or a place fails.
    """
    endpoints = load_endpoints(profile)
    persons = _persons(endpoints, task, entity)
    salts = {person.task.name: _salts(endpoints, profile, person) for person in persons}  # before anything is changed
    traces = Traces(endpoints.scratch(), persons[0].text)
    done = []
    with console(stderr=True).status("looking") as status:
        for person in persons:
            status.update(f"{person.task.name}: {'looking' if dry_run else 'taking out'}")
            done.append(_Forgetting(endpoints, person, salts[person.task.name], dry_run).run())
        # What is looked at only is still in the online store.
        files, left = traces.look(overwrite=not dry_run, skip=endpoints.uri("online") if dry_run else "")
    document = {
        "dry_run": dry_run,
        "tasks": [{**asdict(one), "to_do": _to_do(one)} for one in done if one.found or not dry_run],
        "texts": files,
        "texts_searched": traces.distinct,
        "left": left,
    }
    emit(document, as_json, lambda out: _show(out, done, document))


def _persons(endpoints: Endpoints, task: str, entity: str) -> list[Person]:
    """The person in each task that may know them.

    Raises:
        PlatformError: ``code="bad_option"``: a task has several kinds of entities, or none of that name.
    """
    from feature_repo.stores.keys import RefusedKeyError, canonical_text

    name, sign, key = entity.partition("=")
    column, given = (name, key) if sign else ("", entity)
    try:
        text = canonical_text(given)
    except RefusedKeyError as err:
        raise PlatformError("not an entity key", detail=str(err), fix="--entity KEY", code="bad_option") from err
    if not text:
        raise PlatformError("an entity key is empty", fix="write --entity COLUMN=KEY", code="bad_option")
    known = [get_task(task)] if task else [get_task(one) for one in task_names() if _has_data(endpoints, one)]
    found = [
        Person(task=one, column=found, text=text)
        for one in known
        if (found := _column(one, column, explicit=bool(task)))
    ]
    if not found:
        columns = sorted({name for one in known for name in (*one.entities, one.id)})
        raise PlatformError(
            f"no task has an entity {column!r}" if column else "no task has data",
            detail=f"entities and ids of what has data: {', '.join(columns) or 'none'}",
            fix="--entity COLUMN=KEY, with one of these, or --task",
            code="bad_option",
        )
    return found


def _column(task: Task, column: str, explicit: bool) -> str:
    """The column that names entities of a task; "" where it has not the one that was asked for."""
    names = tuple(task.entities) or (task.id,)
    if column:
        return column if column in (*task.entities, task.id) else ""
    if len(names) > 1:
        raise PlatformError(
            f"task {task.name} is about several kinds of entities",
            detail=f"got a key without a name; there are: {', '.join(names)}",
            fix=f"write for example --entity {names[0]}=KEY",
            code="bad_option",
        )
    return names[0]


def _has_data(endpoints: Endpoints, task: str) -> bool:
    places = [storage.join(endpoints.uri(kind), task) for kind in ("data", "features", "predictions")]
    return any(storage.exists(place) for place in places)


def _salts(endpoints: Endpoints, profile: str, person: Person) -> dict[str, str]:
    """The salt of each model's log that may have records of the person."""
    from contracts.registry import Registry
    from services.feedback.layout import models

    if person.column not in person.task.entities:
        return {}  # a log has entities, and no ids of rows
    logged = set(models(endpoints.uri("predictions")))
    if not logged:
        return {}
    of_task = {person.task.name, *(one for one in Registry(endpoints).names() if one in logged)}
    return {name: salt_of(endpoints, profile, name) for name in sorted(logged & of_task)}


class _Forgetting:
    """One person in one task."""

    def __init__(self, endpoints: Endpoints, person: Person, salts: dict[str, str], dry_run: bool) -> None:
        self._ends, self._person, self._salts, self._dry = endpoints, person, salts, dry_run
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
        self._features_and_online()
        self._log()
        if not self._dry:
            forgotten.name_sources(self._data, self._task)
            if here:  # what was read of a collection that grows, and what killed runs began to read
                forgotten.remove_all(storage.join(self._data, self._task, ".collections"))
                forgotten.remove_all(storage.join(self._data, self._task, ".staging"))
        self._steps()
        self._models()
        if entry is not None:
            said = {**asdict(self._done), "entity": entry.hash, "models": [one["ref"] for one in self._done.models]}
            note(self._ends, "forget_entity", self._task, evidence=said)
        return self._done

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
        from services.feedback import forgetting

        for model, salt in self._salts.items():
            for text in sorted(self._texts):
                keys = {self._person.column: text}
                if self._dry:
                    self._done.predictions += forgetting.count(self._ends.uri("predictions"), model, keys, salt)
                else:
                    removed = forgetting.forget(self._ends.uri("predictions"), model, keys, salt)
                    self._done.predictions += removed.predictions
                    self._done.labels += removed.labels

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
        from contracts.bundle import DOCUMENT, parse_document
        from contracts.registry import Registry

        if not self._affected:
            return
        registry = Registry(self._ends)
        for name in registry.names():
            for version in registry.versions(name):
                place = storage.join(version.path, DOCUMENT)
                try:
                    document = parse_document(storage.read_bytes(place), version.path)
                except PlatformError as err:
                    if err.code != "not_found":
                        raise
                    continue
                if document.task == self._task and document.lineage.data_version in self._affected:
                    aliases = list(version.aliases)
                    said = {"aliases": aliases, "data_version": document.lineage.data_version}
                    self._done.models.append({"ref": f"{name}:{version.version}", **said})


def _to_do(done: Done) -> list[str]:
    """What is left to people."""
    if not done.models:
        return []
    lines = [f"train again, without the rows: fairlead run {done.task}"]
    if any("champion" in one["aliases"] for one in done.models):
        lines.append(f"promote and deploy the new version: fairlead promote {done.task}:VERSION")
    lines.append("then delete the bundles of the versions above: their weights and golden examples are of the old rows")
    return lines


def _show(out: Console, done: list[Done], document: dict[str, Any]) -> None:
    said = "Found, nothing is changed" if document["dry_run"] else "Taken out"
    made = table("task", "by", "data", "features", "online", "predictions", "labels", "cached steps")
    for one in done:
        rows = ", ".join(f"{each['version']}: {each['rows']:,} rows" for each in one.versions) or "-"
        counts = (one.features, one.online, one.predictions, one.labels, one.steps)
        made.add_row(one.task, one.column, rows, *(f"{count:,}" for count in counts))
    out.print(said)
    out.print(made)
    for one in done:
        for model in one.models:
            aliases = f" ({', '.join(model['aliases'])})" if model["aliases"] else ""
            out.print(f"Model    {model['ref']}{aliases} was trained with rows of theirs, of {model['data_version']}")
        for line in _to_do(one):
            out.print(f"To do    {line}", soft_wrap=True, markup=False)
    if document["texts"]:
        out.print(f"Texts    {document['texts']} files named them" + ("" if document["dry_run"] else "; overwritten"))
    if not document["texts_searched"]:
        out.print("Texts    logs and reports were not searched: the key is too short to be told from other numbers")
    for file in document["left"]:
        out.print(f"Left     {file} names them and cannot be changed", soft_wrap=True, markup=False)
    out.print(
        "Not ours to change: sources, backups, what `fairlead score` wrote, files that were given away. Runs that are "
        "under way may still write what they have read: run it once more after them.",
        soft_wrap=True,
    )
