"""Where a model is executed."""

from __future__ import annotations

import pytest

from contracts.engine import onnx_providers

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("available", "used"),
    [(["AzureExecutionProvider", CPU], [CPU]), (["TensorrtExecutionProvider", CUDA, CPU], [CUDA, CPU])],
)
def test_a_build_for_gpus_is_used_with_the_cpu_behind_it(available: list[str], used: list[str]) -> None:
    assert onnx_providers(available) == used
