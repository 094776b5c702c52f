"""Write the JSON Schemas that are committed: ``python -m deploy.schemas [ROOT]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def write_schemas(root: Path) -> list[Path]:
    """Write every schema below `root` (the project's folder) and return the files."""
    from contracts import bundle

    file = root / "contracts" / "bundle.schema.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(bundle.schema(), indent=1) + "\n", encoding="utf-8")
    return [file]


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    for written in write_schemas(target):
        sys.stdout.write(f"{written}\n")
