"""A registry's file as MLflow writes it, made without MLflow."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def register(home: Path, models: dict[str, list[Path]]) -> None:
    """Versions by model; the last of each is the champion."""
    home.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(home / "mlflow.db") as file:
        for table, columns in {
            "registered_models": "name, creation_time",
            "model_versions": "name, version, creation_time, source, run_id, current_stage",
            "registered_model_tags": "name, key, value",
            "model_version_tags": "name, version, key, value",
            "registered_model_aliases": "name, version, alias",
        }.items():
            file.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
        for name, paths in models.items():
            file.execute("INSERT INTO registered_models VALUES (?, 1)", (name,))
            for number, path in enumerate(paths, 1):
                row = (name, number, 1_700_000_000_000 + number, str(path), "", "None")
                file.execute("INSERT INTO model_versions VALUES (?, ?, ?, ?, ?, ?)", row)
                tags = {"digest": "d" * 64, "gate": "passed", "recipe": "lightgbm", "metrics": '{"roc_auc": 0.9}'}
                for key, value in tags.items():
                    file.execute("INSERT INTO model_version_tags VALUES (?, ?, ?, ?)", (name, number, key, value))
            file.execute("INSERT INTO registered_model_aliases VALUES (?, ?, 'champion')", (name, len(paths)))
