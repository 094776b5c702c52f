"""``fairlead`` as a process, with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import deploy

ROOT = Path(deploy.__file__).parents[1]


@dataclass(frozen=True)
class Shell:
    """Runs ``fairlead`` with a home of its own; `project` is where the packages come from."""

    home: Path
    project: Path = ROOT
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        own = {
            "FAIRLEAD_HOME": str(self.home),
            "PYTHONPATH": str(self.project),
            "COLUMNS": "100",
        }
        object.__setattr__(self, "environment", os.environ | own)

    def __call__(self, *arguments: str, code: int = 0, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deploy.cli", *arguments],
            env=self.environment,
            cwd=self.home.parent,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
        )

    def json(self, *arguments: str, code: int = 0, stdin: str | None = None) -> Any:
        return json.loads(self(*arguments, "--json", code=code, stdin=stdin))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", *arguments],
            env=self.environment,
            cwd=self.home.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def documents(process: subprocess.Popen[str]) -> Any:
    """The JSON document that a command prints before it waits."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            break
    return json.loads(text)
