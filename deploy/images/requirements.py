"""Print what the given extras of pyproject.toml need, so that an image installs it before it copies any code."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(extra: str) -> Iterator[str]:
    """What an extra needs, and what the extras need that it names."""
    for line in project["optional-dependencies"][extra]:
        if own := re.fullmatch(rf"{project['name']}\[(.+)\]", line):
            for name in own[1].split(","):
                yield from requirements(name)
        else:
            yield line


wanted = [*project["dependencies"], *(line for name in sys.argv[1:] for line in requirements(name))]
sys.stdout.write("\n".join(sorted(set(wanted))) + "\n")
