"""Packages of other people, as they lie in a folder where packages are installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(folder: Path, name: str, files: Mapping[str, str], entries: Mapping[str, str]) -> None:
    """Write a package's `files`, and `entries`: kind, such as "tasks" -> "name = module:object"."""
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    points = "".join(f"[fairlead.{kind}]\n{entry}\n" for kind, entry in entries.items())
    (info / "entry_points.txt").write_text(points)


def install_counts(folder: Path) -> None:
    """The package of ``tests/toy/toy_counts``, which has a problem, an engine, a recipe and a task."""
    package = Path(__file__).parent / "toy" / "toy_counts"
    entries = {
        "problems": "counts = toy_counts.problem:PROBLEM",
        "engines": "steps = toy_counts.problem:ENGINE",
        "recipes": "fine = toy_counts.task:fine",
        "tasks": "beds = toy_counts.task:TASK",
    }
    _install_toy(folder, package, entries)


def install_visits(folder: Path) -> None:
    """The package of ``tests/toy/toy_visits``, which has a task with features."""
    entries = {
        "tasks": "visits = toy_visits.task:TASK",
        "features": "visits = toy_visits.views",
        "transforms": "visits = toy_visits.ratio",
    }
    _install_toy(folder, Path(__file__).parent / "toy" / "toy_visits", entries)


def _install_toy(folder: Path, package: Path, entries: Mapping[str, str]) -> None:
    files = {f"{package.name}/{file.name}": file.read_text(encoding="utf-8") for file in package.glob("*.py")}
    install(folder, package.name, files, entries)


def write_visits(file: Path) -> None:
    """900 visits for the task of `install_visits`: guests pay from 10 to 300, and twice as much at a celebration."""
    rows = ["visit,at,guest,amount,celebrates"]
    for at in range(900):
        guest, celebrates = at % 30, at * 7 % 13 == 0
        moment = f"2026-01-{1 + at // 48:02}T{at // 2 % 24:02}:{at % 2 * 30:02}:00Z"
        amount = 10 * (guest + 1) * (2 if celebrates else 1)
        rows.append(f"V{at},{moment},G{guest},{amount},{'yes' if celebrates else 'no'}")
    file.write_text("\n".join(rows), encoding="utf-8")
