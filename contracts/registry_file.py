"""Reads models from the SQLite file that MLflow keeps, as MLflow's client gives them, without importing MLflow.

Importing MLflow and opening its store takes 4 s, which a command that only asks what there is need not pay. The file is
opened read-only and is not made. What cannot be read this way, such as the tables of another MLflow, is MLflow's.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_PREFIX = "sqlite:///"
_TABLES = {
    "registered_models": {"name", "creation_time"},
    "model_versions": {"name", "version", "creation_time", "source", "run_id", "current_stage"},
    "registered_model_tags": {"name", "key", "value"},
    "model_version_tags": {"name", "version", "key", "value"},
    "registered_model_aliases": {"name", "version", "alias"},
}
_NAMED = re.compile(r"^name = '([^']*)'$")


class Page(list[Any]):
    """All rows at once: a page without a next one."""

    token = None


class RegistryFile:
    """The part of MLflow's client that reads models."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def search_registered_models(self, page_token: str | None = None) -> Page:
        """All models, with their tags and aliases."""
        return Page(self.get_registered_model(row[0]) for row in self._rows("SELECT name FROM registered_models"))

    def search_model_versions(self, filter_string: str, page_token: str | None = None) -> Page:
        """The versions of one model; `filter_string` is ``name = '...'``."""
        name = _NAMED.match(filter_string)
        assert name is not None, filter_string
        query = (
            "SELECT version, creation_time, source, run_id FROM model_versions "
            "WHERE name = ? AND current_stage IS NOT 'Deleted_Internal'"
        )
        rows = list(self._rows(query, name[1]))
        tags: dict[int, dict[str, str]] = {}
        for version, key, value in self._rows(
            "SELECT version, key, value FROM model_version_tags WHERE name = ?", name[1]
        ):
            tags.setdefault(version, {})[key] = value
        return Page(
            SimpleNamespace(
                name=name[1],
                version=str(version),
                creation_timestamp=created,
                source=source,
                run_id=run,
                tags=tags.get(version, {}),
            )
            for version, created, source, run in rows
        )

    def get_registered_model(self, name: str) -> SimpleNamespace:
        """One model with its tags and aliases; both are empty for an unknown name."""
        aliases = self._rows("SELECT alias, version FROM registered_model_aliases WHERE name = ?", name)
        tags = self._rows("SELECT key, value FROM registered_model_tags WHERE name = ?", name)
        return SimpleNamespace(name=name, aliases={key: str(value) for key, value in aliases}, tags=dict(tags))

    def _rows(self, query: str, *values: str) -> Iterator[Any]:
        if not self._file.exists():
            return iter(())
        with contextlib.closing(_connect(self._file)) as connection:
            return iter(connection.execute(query, values).fetchall())


def open_file(tracking: str) -> RegistryFile | None:
    """The file of a tracking address; None when the address is another one, or the file is not as it is known here.

    A file that is not there has no models. It is not made.
    """
    if not tracking.startswith(_PREFIX) or "?" in tracking:
        return None
    file = Path(tracking.removeprefix(_PREFIX))
    if file.exists():
        try:
            with contextlib.closing(_connect(file)) as connection:
                for table, columns in _TABLES.items():
                    there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
                    if not columns <= there:
                        return None
                if connection.execute("SELECT 1 FROM registered_models GROUP BY name HAVING COUNT(*) > 1").fetchone():
                    return None  # workspaces of MLflow keep models of one name apart
        except sqlite3.Error:
            return None
    return RegistryFile(file)


def read_experiment(tracking: str, name: str) -> tuple[str, str] | None:
    """Id and stage ("active" or "deleted") of an experiment; None when the file does not say that it has one.

    Raises:
        sqlite3.DatabaseError: the file is damaged, or is no database.
    """
    file = Path(tracking.removeprefix(_PREFIX))
    if not tracking.startswith(_PREFIX) or not file.exists():
        return None
    try:
        with contextlib.closing(_connect(file)) as connection:
            query = "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?"
            found = connection.execute(query, (name,)).fetchone()
    except sqlite3.OperationalError:  # no such table yet
        return None
    return None if found is None else (str(found[0]), str(found[1]))


def place_of(tracking: str) -> str:
    """Where models are looked for, as people say it: the folder of the file, or the address of a server."""
    return str(Path(tracking.removeprefix(_PREFIX)).parent) if tracking.startswith(_PREFIX) else tracking


def all_pages(search: Callable[..., Any], **query: Any) -> list[Any]:
    """Everything that a search of MLflow's client finds."""
    found, token = [], None
    while True:
        page = search(page_token=token, **query)
        found += list(page)
        token = page.token
        if not token:
            return found


def _connect(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
