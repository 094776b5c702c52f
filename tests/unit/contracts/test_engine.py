"""Where a model is executed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.engine import onnx_providers

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("available", "used"),
    [(["AzureExecutionProvider", CPU], [CPU]), (["TensorrtExecutionProvider", CUDA, CPU], [CUDA, CPU])],
)
def test_a_build_for_gpus_is_used_with_the_cpu_behind_it(available: list[str], used: list[str]) -> None:
    assert onnx_providers(available) == used


def test_onnx_runtime_tells_nobody_that_it_runs(tmp_path: Path) -> None:
    given = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    code = "import contracts, onnxruntime; print(len(onnxruntime.get_available_providers()))"
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**given, "HOME": str(tmp_path), "XDG_CACHE_HOME": "", "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) > 0
    assert list(tmp_path.rglob("*")) == [], "it keeps the number of this machine for its reports"
