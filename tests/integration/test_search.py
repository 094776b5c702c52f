"""A search in real processes: one of them is killed, and no trial is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.integration
TOY = Path(__file__).parents[1] / "toy"
ROOT = Path(__file__).parents[2]


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes of the search, once both have begun a trial."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        found = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "pipelines.search.worker" in child.cmdline()
        ]
        folders = {trial for child in found for trial in Path(child.cmdline()[-2]).parent.glob("trial-*")}
        if len(found) == 2 and len(folders) == 2:
            return found
        time.sleep(0.1)
    raise AssertionError("the search has not begun")


def test_a_killed_worker_loses_no_trial_and_the_best_is_a_run_with_its_bundle(tmp_path: Path) -> None:
    path = os.pathsep.join([str(TOY), str(ROOT), os.environ.get("PYTHONPATH", "")])
    space = "search.space={model.rounds: {low: 5, high: 25}}"
    command = [sys.executable, "-m", "deploy.cli", "search", "toy", "--json", "-n", "8", "-w", "2", "-m", "roc_auc"]
    environment = os.environ | {"PYTHONPATH": path, "FAIRLEAD_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--set", space, "--set", "model.pause=0.05"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        os.kill(workers(process)[0].pid, signal.SIGKILL)
        said, _ = process.communicate(timeout=300)
    report = json.loads(said)
    assert process.returncode == 0, report
    search = report["search"]
    assert search["counts"]["tried"] == 8
    assert search["counts"]["lost and repeated"] == 1
    assert len({one["number"] for one in search["trials"]}) == 8
    assert report["result"]["champion"]
    assert search["verdict"][1:] in Path(report["model_card"]).read_text(encoding="utf-8")
