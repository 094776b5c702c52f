"""Programs that chart tests run: on PATH, or those of the test cluster."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest

CHARTS = Path(__file__).parents[2] / "helm"


@lru_cache(maxsize=4)
def find(program: str) -> str:
    """Path of `program`; empty when this machine has none."""
    if found := shutil.which(program):
        return found
    up = Path("/var/lib/fairlead-cluster/bin") / program
    if up.exists():
        return str(up)
    packed = Path(os.environ.get("FAIRLEAD_TEST_CLUSTER", "/nonexistent")) / "bin" / f"{program}.xz"
    if not packed.exists():
        return ""
    target = Path(tempfile.mkdtemp(prefix="fairlead-")) / program
    target.write_bytes(lzma.decompress(packed.read_bytes()))
    target.chmod(0o755)
    return str(target)


def helm(*arguments: str, given: str = "", program: str = "helm") -> subprocess.CompletedProcess[str]:
    """Run Helm (or promtool) without a cluster; skips the test where there is none."""
    path = find(program)
    if not path:
        pytest.skip(f"{program} is not on PATH, and FAIRLEAD_TEST_CLUSTER does not name a folder that has it")
    home = tempfile.gettempdir()
    # Go looks for garbage less often: a quarter of a rendering's time.
    environment = {"PATH": os.environ["PATH"], "HOME": home, "KUBECONFIG": "/nonexistent", "GOGC": "400"}
    return subprocess.run([path, *arguments], input=given, capture_output=True, text=True, check=False, env=environment)
