"""The README is true: its tree is the tree, its commands exist, its length is bounded."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_its_tree_is_the_tree() -> None:
    named = {line.split()[0].rstrip("/") for line in blocks("text")[-1].splitlines() if line and line[0] != " "}
    hidden = {".git", ".venv", ".ci", "build"}
    ignored = {line.strip("/\n") for line in (ROOT / ".gitignore").read_text().splitlines()}
    real = {p.name for p in ROOT.iterdir() if p.name not in hidden | ignored and not p.name.startswith(".")}
    real = {name for name in real if not name.endswith(".egg-info")}
    assert named == real


def test_every_make_target_it_names_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", README))
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named - targets == set()
    assert {"demo", "test"} <= named


def test_every_fairlead_command_it_names_exists() -> None:
    from typer.main import get_command

    from deploy.cli.app import app

    named = set(re.findall(r"^\$? ?(?:\.venv/bin/)?fairlead ([a-z-]+)", "\n".join(blocks("sh")), re.MULTILINE))
    assert named - set(get_command(app).commands) == set()  # type: ignore[attr-defined]
    assert "run" in named


def test_every_file_it_links_exists() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target
