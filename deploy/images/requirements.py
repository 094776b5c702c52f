"""Print what the given extras of pyproject.toml need, so that an image installs it before it copies any code."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
wanted = [*project["dependencies"], *(line for name in sys.argv[1:] for line in project["optional-dependencies"][name])]
sys.stdout.write("\n".join(sorted(set(wanted))) + "\n")
