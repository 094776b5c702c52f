"""Run the notebooks from top to bottom: ``make notebooks``, or ``python -m tests.notebooks FILE ...``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
TIMEOUT = 300  # seconds of one cell


def run_notebook(file: Path, folder: Path, env: Mapping[str, str] | None = None) -> Any:
    """Execute a notebook in `folder` with a kernel of its own, and give it back with what its cells show.

    What they show is left in `folder` as well, as ``NAME.ipynb``, also of a notebook that ends at a cell.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails, with what it said.
    """
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook = jupytext.read(file)
    client = NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": str(folder)}})
    try:
        client.execute(env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})})
    finally:
        nbformat.write(notebook, folder / f"{file.stem}.ipynb")
    return notebook


def main() -> int:
    """Run the given notebooks, or all, in a home of their own; each is left as ``build/notebooks/NAME.ipynb``."""
    from nbclient.exceptions import CellExecutionError

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="default: all below notebooks/")
    folder = ROOT / "build" / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("FAIRLEAD_HOME", str(folder / ".fairlead"))
    began = time.monotonic()
    for file in parser.parse_args().files or NOTEBOOKS:
        start = time.monotonic()
        try:
            run_notebook(file, folder)
        except CellExecutionError as err:
            sys.stderr.write(f"{file.name}: {err}\n")
            return 1
        sys.stdout.write(f"{file.name}  {time.monotonic() - start:.1f} s  {folder / file.stem}.ipynb\n")
    sys.stdout.write(f"all {time.monotonic() - began:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
