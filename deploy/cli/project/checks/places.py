"""The profile's home, registry and ports, and what dead runs left behind."""

from __future__ import annotations

import importlib.util
import os
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli.machine.ports import is_free, next_free
from deploy.cli.profiles.loading import load_deployment, profile_file
from deploy.cli.project.checks.finding import Finding, graded
from deploy.cli.project.checks.machine import nearest
from deploy.cli.runs.run_files import list_runs
from deploy.cli.terminal.advice import profile_words, resume_command

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints

_SQLITE = "sqlite:///"


def check_places(endpoints: Endpoints, profile: str) -> Iterator[Finding]:
    """Findings about what the profile points at."""
    yield home(endpoints.path("home"))
    yield registry(endpoints.tracking)
    yield from ports(profile)
    yield leftovers(endpoints, profile)


def home(folder: Path) -> Finding:
    """Everything without an address of its own is written there."""
    at = nearest(folder)
    writable = at.is_dir() and os.access(at, os.W_OK | os.X_OK)
    found = f"{folder}{'' if folder.exists() else ' (made by the first run)'}"
    if not writable:
        found = f"cannot write to {at}"
    return graded("home", found, "FAIRLEAD_HOME=/other/folder, or change its owner", fail=not writable)


def registry(uri: str) -> Finding:
    """A tracking server answers, or the SQLite file has the schema of the installed MLflow."""
    if uri.startswith("http"):
        return _server(uri)
    if not uri.startswith(_SQLITE):
        return graded("registry", f"{uri.partition('://')[0]} database, not checked", "")
    file = Path(uri.removeprefix(_SQLITE))
    if not file.exists():
        return graded("registry", f"{file} (made by the first run)", "")
    try:
        have = database_version(file)
    except sqlite3.Error as err:
        return graded("registry", f"{file}: {err}", f"move the damaged file away: mv {file} {file}.bad", fail=True)
    want = newest_schema()
    fix = f"back it up, then: mlflow db upgrade {uri}"
    different = bool(want) and have not in want
    return graded(
        "registry", f"{file}, schema {have}{' is not of this MLflow' if different else ''}", fix, fail=different
    )


def _server(uri: str) -> Finding:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=3):
            return graded("registry", f"{uri} answers", "")
    except (urllib.error.URLError, OSError) as err:
        return graded("registry", f"{uri}: {err}", "start it, or correct `tracking` of the profile", fail=True)


def database_version(file: Path) -> str:
    """The migration an MLflow database is at; empty for a file without tables."""
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=2)
    try:
        if not connection.execute("select 1 from sqlite_master where name = 'alembic_version'").fetchone():
            return ""
        row = connection.execute("select version_num from alembic_version").fetchone()
        return str(row[0]) if row else ""
    finally:
        connection.close()


def newest_schema() -> set[str]:
    """The migrations that the installed MLflow may be at; read from its files, because importing it takes seconds."""
    spec = importlib.util.find_spec("mlflow")
    if spec is None or not spec.submodule_search_locations:
        return set()
    folder = Path(spec.submodule_search_locations[0]) / "store" / "db_migrations" / "versions"
    revisions: set[str] = set()
    parents: set[str] = set()
    for file in folder.glob("*.py"):
        for key, value in re.findall(r"^(revision|down_revision) = ['\"](\w+)['\"]", file.read_text("utf-8"), re.M):
            (revisions if key == "revision" else parents).add(value)
    return revisions - parents


def ports(profile: str) -> Iterator[Finding]:
    """The ports that deployed models ask for."""
    for file in sorted((profile_file(profile).parent / "models").glob("*.yaml")):
        port = load_deployment(profile, file.stem).port
        busy = not is_free(port)
        found = f"{port} is in use: is {file.stem} served already?" if busy else f"{port} is free"
        other = next_free(port) if busy else port
        fix = " ".join([f"fairlead serve {file.stem} --port {other}", *profile_words(profile)])
        yield graded(f"port of {file.stem}", found, fix, warn=busy)


def leftovers(endpoints: Endpoints, profile: str) -> Finding:
    """Runs whose process died, and half-written folders that nobody sees."""
    dead = [run["run_id"] for run in list_runs(endpoints) if run["status"] == "dead"]
    places = [endpoints.uri(name) for name in ("data", "artifacts", "features")]
    local = [Path(place) for place in places if "://" not in place and Path(place).is_dir()]
    staging = [path for place in local for path in place.glob("*/.staging-*")]
    if not dead and not staging:
        return graded("leftovers", "none", "")
    parts = []
    if dead:
        parts.append(f"go on: {resume_command(dead[0], profile)}")
    if staging:
        parts.append(f"when nothing runs: rm -r {staging[0].parent}/.staging-*")
    found = f"{len(dead)} dead runs, {len(staging)} half-written folders"
    return graded("leftovers", found, "; ".join(parts), warn=True)
