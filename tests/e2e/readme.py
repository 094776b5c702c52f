"""The commands of the README's Kubernetes section, run as they are written, in the namespace of a test."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
VALUES = ROOT / "deploy" / "env" / "cluster" / "models" / "fraud.yaml"

# A second version without a second training: the first one's bundle, with another note.
_SECOND = """
import shutil, sys, tempfile
from pathlib import Path
from contracts.bundle import write_bundle
from contracts.registry import Registry
from deploy.cli.profiles.loading import load_endpoints
registry = Registry(load_endpoints("cluster"))
bundle = registry.fetch("fraud@champion")
folder = Path(tempfile.mkdtemp()) / "second"
shutil.copytree(bundle.path, folder)
(folder / "bundle.json").unlink()
(folder / "note.txt").write_text("second")
made = registry.publish(write_bundle(folder, Path(tempfile.mkdtemp()), bundle.document.model_dump(exclude={"files"})))
print(registry.promote(f"fraud:{made.version}").version)
"""


def commands() -> dict[str, list[str]]:
    """Each command of the section's first block by its verb: install, deploy, predict, rollback.

    Those about training need Kubeflow's programs.
    """
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## On Kubernetes")[2]
    block, *_ = re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    return {words[1]: words for words in lines if words}


class Reader:
    """Somebody who types what the README says; the namespace comes from the environment."""

    def __init__(self, namespace: str, home: Path) -> None:
        given = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "FAIRLEAD_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"FAIRLEAD_CLUSTER__NAMESPACE": namespace, "FAIRLEAD_HOME": str(home), "PATH": path}
        self.environment = {**given, **own}

    def type(self, verb: str, *more: str) -> str:
        """Output of the README's command `verb`, with more options at its end."""
        return self.run([*commands()[verb], *more])

    def second_version(self) -> str:
        """Publish and promote another version; returns its number."""
        return self.run([sys.executable, "-c", _SECOND]).split()[-1]

    def run(self, command: list[str]) -> str:
        """Output of a command; its complaints fail the test."""
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def reading(namespace: str, home: Path) -> Iterator[Reader]:
    """A reader; the values file that `fairlead deploy` writes into the tree is put back as it was."""
    before = VALUES.read_bytes() if VALUES.exists() else None
    folder = VALUES.parent.exists()
    try:
        yield Reader(namespace, home)
    finally:
        if before is not None:
            VALUES.write_bytes(before)
        else:
            VALUES.unlink(missing_ok=True)
            if not folder and VALUES.parent.exists():
                VALUES.parent.rmdir()
