"""``fairlead forget``: a person's rows are taken out of all that the platform keeps; models that had them are named.

The person is on the list of the data first, so that no run reads the rows again; then each place follows, and a call
that was ended is made again: what is done stays done.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError
from deploy.cli.privacy.taking_out import Done, Forgetting, Log, Person, document_of
from deploy.cli.privacy.traces import Traces
from deploy.cli.profiles.adapters import adapter_settings
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.profiles.log_salt import salt_of
from deploy.cli.terminal.output import console, emit, table
from pipelines.tasks import get_task, task_names

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints
    from contracts.registry import Registry
    from pipelines.task import Task


def forget(profile: str, entity: str, task: str, dry_run: bool, as_json: bool) -> None:
    """Take the rows of an entity out, or with `dry_run` say how many there are.

    Raises:
        PlatformError: the entity cannot be told, or not be found in what was masked; or a place fails.
    """
    endpoints = load_endpoints(profile)
    persons = _persons(endpoints, profile, task, entity)
    logs = {person.task.name: _logs(endpoints, profile, person) for person in persons}  # before anything is changed
    traces = Traces(endpoints.scratch(), persons[0].text)
    done = []
    with console(stderr=True).status("looking") as status:
        for person in persons:
            status.update(f"{person.task.name}: {'looking' if dry_run else 'taking out'}")
            done.append(Forgetting(endpoints, person, logs[person.task.name], dry_run).run())
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


def _persons(endpoints: Endpoints, profile: str, task: str, entity: str) -> list[Person]:
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
        if (found := _column(one, column, _whose(profile, one)))
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


def _whose(profile: str, task: Task) -> str:
    """What requests call the persons that have adapters of a task's model by; "" where there are none."""
    given = adapter_settings(profile, task.name)
    return given.entity if given.folder else ""


def _column(task: Task, column: str, whose: str) -> str:
    """The column that names entities of a task; "" where it has not the one that was asked for."""
    names = tuple(task.entities) or (task.id,)
    if column:
        return column if column in (whose, *task.entities, *(one.name for one in task.columns)) else ""
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


def _logs(endpoints: Endpoints, profile: str, person: Person) -> list[Log]:
    """The models of a task that are served; ids of rows are in no log.

    Raises:
        PlatformError: ``code="random_salt"``: records of a log cannot be found.
    """
    from contracts.registry import Registry
    from services.feedback.layout import models

    if person.column == person.task.id:
        return []
    logged, found, registry = set(models(endpoints.uri("predictions"))), [], Registry(endpoints)
    others = [name for name in (registry.names() if logged else []) if _task_of(registry, name) == person.task.name]
    for name in sorted({person.task.name, *others}):
        adapters = adapter_settings(profile, name)
        whose = adapters.folder and adapters.entity in ("", person.column)
        if name in logged or whose:
            salt = salt_of(endpoints, profile, name)
            found.append(Log(model=name, salt=salt, adapters=adapters if whose else None))
    return found


def _task_of(registry: Registry, name: str) -> str:
    """The task of a model, by the first of its bundles that is there."""
    return next((document.task for one in registry.versions(name) if (document := document_of(one))), "")


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
    kept = ("documents", "features", "online", "predictions", "labels", "annotations", "adapters", "steps")
    made = table("task", "by", "data", *kept[:-1], "cached steps")
    for one in done:
        rows = ", ".join(f"{each['version']}: {each['rows']:,} rows" for each in one.versions) or "-"
        made.add_row(one.task, one.column, rows, *(f"{getattr(one, name):,}" for name in kept))
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
        out.print("Texts    logs and reports were not searched: the key cannot be told from other words and numbers")
    for file in document["left"]:
        out.print(f"Left     {file} names them and cannot be changed", soft_wrap=True, markup=False)
    out.print(
        "Not ours to change: sources, backups, what `fairlead score` wrote, files that were given away. Runs that are "
        "under way may still write what they have read: run it once more after them.",
        soft_wrap=True,
    )
