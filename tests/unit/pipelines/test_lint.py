"""The lint refuses what KFP's local runner gets silently wrong, and passes what we ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from pipelines import components, grouped
from pipelines.lint import lint_arguments, lint_components, lint_workflow

GOOD = '''
from kfp import dsl
from kfp.dsl import Dataset, Output

@dsl.component(base_image="fairlead/python", install_kfp_package=False)
def step(task: str, rows: int, out: Output[Dataset]):
    """What it does."""
    from pipelines.steps import step

    step.run(task, rows, out.path)
'''


def test_our_components_pass() -> None:
    for module in (components, grouped):
        lint_components(Path(str(module.__file__)))


def test_a_good_component_passes(tmp_path: Path) -> None:
    file = tmp_path / "components.py"
    file.write_text(GOOD)
    lint_components(file)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "from kfp import dsl\n",
            "from __future__ import annotations\nfrom kfp import dsl\n",
            "annotations that are text",
        ),
        ('base_image="fairlead/python", ', "", "no base_image"),
        (", install_kfp_package=False", "", "install_kfp_package=False is missing"),
        ("install_kfp_package=False", "install_kfp_package=True", "install_kfp_package=False is missing"),
        ("False)\n", 'False, packages_to_install=["pandas"])\n', "packages_to_install"),
        ("False)\n", 'False, embedded_artifact_path=".")\n', "embedded_artifact_path"),
        ("rows: int", "rows: list", "rows is a list"),
        ("rows: int", "rows: dict[str, int]", "rows is a dict[str, int]"),
        ("rows: int", "rows: dsl.OutputPath(str)", "rows is a dsl.OutputPath(str)"),
        ("    step.run", "    a = 1\n" * 10 + "    step.run", "12 lines"),
    ],
)
def test_each_trap_of_a_component_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "components.py"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(PlatformError) as caught:
        lint_components(file)
    assert caught.value.code == "unsafe_workflow"
    assert said in caught.value.detail


def test_plain_arguments_pass(tmp_path: Path) -> None:
    lint_arguments({"task": "fraud", "config": '{"a": [1, 2]}', "promote": True, "rows": 3}, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"source": "/opt/python3.11/data"}, "source contains 'python3'"),
        ({"source": "/tmp/kfp-workspace-1/x"}, "source contains 'kfp-workspace'"),
        ({"config": '{"a": "{{$.inputs}}"}'}, "config contains '{{$'"),
        ({"rows": [1, 2]}, "rows: a list turns whole numbers into floats"),
        ({"rows": {"k": 1}}, "rows: a dict turns whole numbers into floats"),
        ({"a": "x" * 60_000, "b": "ü" * 10_000}, "at most 100,000 fit"),
    ],
)
def test_each_unsafe_argument_is_named(arguments: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        lint_arguments(arguments, tmp_path)
    assert said in caught.value.detail


def test_the_folder_of_outputs_is_checked_too() -> None:
    with pytest.raises(PlatformError) as caught:
        lint_arguments({}, Path("/home/a/python3/runs"))
    assert "the folder of runs contains 'python3'" in caught.value.detail


IR = """
root:
  dag:
    tasks:
      one:
        {task}
components:
  comp-one:
    inputDefinitions:
      parameters:
        rows: {{parameterType: {kind}}}
deploymentSpec:
  executors:
    exec-one:
      container:
        image: "{image}"
        command: [sh, -c, "{command}"]
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"kind": "LIST"}, "rows is a list or dict"),
        ({"kind": "STRUCT"}, "rows is a list or dict"),
        ({"image": ""}, "has no image"),
        ({"command": "pip install pandas"}, "runs pip"),
        ({"command": "x" * 110_000}, "cannot be started"),
        (
            {"task": "triggerPolicy: {condition: \"inputs.parameter_values['a'].string_value == 'b'\"}"},
            "branches on a text",
        ),
        ({"task": "triggerPolicy: {condition: \"inputs.parameter_values['a'].bool_value == true\"}"}, ""),
        ({"task": "inputs: {parameters: {p: {runtimeValue: {constant: python3}}}}"}, "p contains 'python3'"),
    ],
)
def test_each_trap_of_a_compiled_workflow_is_named(tmp_path: Path, change: dict[str, str], said: str) -> None:
    values = {"task": "inputs: {}", "kind": "STRING", "image": "fairlead/python", "command": "run"} | change
    file = tmp_path / "ir.yaml"
    file.write_text(IR.format(**values))
    if not said:
        lint_workflow(file)
        return
    with pytest.raises(PlatformError) as caught:
        lint_workflow(file)
    assert said in caught.value.detail
