"""The sites of a simulation: processes of this machine, each with its own rows, certificate and connection.

``python -m pipelines.federation.local_sites JOB`` imports what sites need once and then forks them, before any thread
is started, so that ten sites take the time and memory of little more than one. It ends with its standard input.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from pipelines.federation.rehearsal import FAULTS
from pipelines.federation.site import Site, SiteRules, attend_as
from pipelines.io.files import write_json

# Of its libraries, each site computes by one thread, and none that would have to outlive a fork.
_ALONE = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class LocalSites:
    """The processes of a simulation. Use as a context.

    folder: has a folder for each site, with its rows and, in ``keys``, its certificate.
    faults: site -> what it does wrong.
    imports: modules that they need beside torch, and that take long to import.
    """

    def __init__(
        self, folder: Path, sites: tuple[str, ...], server: str, faults: Mapping[str, str], imports: Sequence[str]
    ) -> None:
        self._job, self._log = folder / "sites.json", folder / "sites.log"
        write_json(
            self._job,
            {
                "folder": str(folder),
                "sites": list(sites),
                "server": server,
                "faults": dict(faults),
                "imports": list(imports),
            },
        )

    def __enter__(self) -> LocalSites:
        command = [sys.executable, "-m", "pipelines.federation.local_sites", str(self._job)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | _ALONE
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Refuse to wait for sites that have ended.

        Raises:
            PlatformError: ``code="no_sites"``.
        """
        if (code := self._process.poll()) is not None:
            tail = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-6:]
            raise PlatformError(
                "the processes of the simulated sites have ended",
                detail=f"exit code {code}: {' | '.join(tail)[:1000] or 'memory may have run out'}",
                fix="take fewer: --clients 4",
                code="no_sites",
            )


def main(job: Path) -> None:
    """Fork the sites, and end them with the standard input."""
    import torch  # noqa: F401

    asked = json.loads(job.read_text())
    for name in asked["imports"]:
        importlib.import_module(name)
    forks = multiprocessing.get_context("fork")
    children = [forks.Process(target=_be, args=(name, asked), name=name) for name in asked["sites"]]
    for child in children:
        child.start()
    sys.stdin.buffer.read()
    for child in children:
        child.kill()


def _be(name: str, asked: Mapping[str, Any]) -> None:
    """Be a site, until the coordinator says that it is over."""
    folder = Path(asked["folder"])
    kind = FAULTS.get(asked["faults"].get(name, ""), Site)
    certificates = folder / name / "keys"
    attend_as(kind(name, folder / name, certificates, SiteRules(min_rows=1)), asked["server"], certificates)
    os._exit(0)  # threads of the engine may be left


if __name__ == "__main__":
    main(Path(sys.argv[1]))
