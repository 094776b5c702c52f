"""Which extras are complete."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator

from deploy.cli.project.checks.finding import Finding, graded

# Extra -> what does not work without it, and whether that is a failure.
PURPOSES = {
    "pipelines": ("training", True),
    "feature-store": ("features", True),
    "services": ("serving", True),
    "torch": ("neural recipes", False),
}
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)[^;]*;.*extra == ['\"]([\w-]+)['\"]")


def check_packages() -> Iterator[Finding]:
    """One finding per extra."""
    extras = extra_packages()
    if not extras:
        yield graded("packages", "fairlead is not installed", "make setup", fail=True)
        return
    for extra, (purpose, needed) in PURPOSES.items():
        missing = [name for name in extras.get(extra, []) if not installed(name)]
        found = f"missing: {', '.join(missing)}" if missing else f"complete ({purpose})"
        fix = f"for {purpose}: pip install -c constraints.txt -e '.[{extra}]'"
        yield graded(f"extra {extra}", found, fix, fail=bool(missing) and needed, warn=bool(missing))


def extra_packages() -> dict[str, list[str]]:
    """Package names of each extra, from our own metadata; empty when fairlead is not installed."""
    try:
        lines = importlib.metadata.requires("fairlead") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    extras: dict[str, list[str]] = {}
    for line in lines:
        if match := _REQUIREMENT.match(line):
            extras.setdefault(match[2], []).append(match[1])
    return extras


def installed(name: str) -> bool:
    """Whether a distribution of that name is there; nothing is imported."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
