"""Rules of the tree that a reviewer should not have to check by hand."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from services.server.lifecycle import MODALITIES

ROOT = Path(__file__).parents[2]
PACKAGES = ("contracts", "pipelines", "services", "feature_repo", "deploy", "fairlead")
SOURCES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=relative)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_nothing_is_called_common_utils_or_helpers() -> None:
    assert [relative(p) for p in SOURCES if {p.stem, *p.parent.parts} & {"common", "utils", "helpers", "misc"}] == []


FORBIDDEN = {
    "pickle runs code of whoever wrote the file": r"^\s*(import|from)\s+(pickle|cloudpickle|dill|joblib)\b",
    "a profile is data, not a branch": r"\bif\s+profile\s*==",
    "work left undone": r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError",
    "weights_only protects from pickled code": r"torch\.load\((?!.*weights_only=True)",
}


@pytest.mark.parametrize("why", FORBIDDEN)
def test_what_must_not_be_written_is_not(why: str) -> None:
    pattern = re.compile(FORBIDDEN[why], re.MULTILINE)
    assert [relative(p) for p in SOURCES if pattern.search(p.read_text(encoding="utf-8"))] == []


def test_contracts_stay_small_and_import_nothing_heavy() -> None:
    code = "import contracts.bundle, contracts.endpoints, contracts.registry, contracts.engine\n"
    code += "import contracts.metric_names, sys; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("mlflow", "numpy", "pandas", "feast", "lightgbm", "onnxruntime"):
        assert f"'{heavy}'" not in loaded


def test_services_load_no_training_code() -> None:
    code = "import sys, services.server.bento; from services.server.lifecycle import MODALITIES\n"
    code += "[MODALITIES.get(name) for name in MODALITIES.names()]\n"
    code += "print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for training in ("torch", "kfp", "mlflow", "feast", "pandas", "sklearn", "pipelines"):
        assert f"'{training}'" not in loaded


def project() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


def requirements(*extras: str) -> list[str]:
    """What the extras need, those that they name included, as images install it."""
    script = ROOT / "deploy" / "images" / "requirements.py"
    done = subprocess.run([sys.executable, str(script), *extras], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_every_modality_has_an_extra_and_services_is_their_sum() -> None:
    names = MODALITIES.names()
    assert set(names) <= set(project()["optional-dependencies"])
    assert requirements("services") == requirements("serving", *names)
    assert not {"pillow", "tokenizers"} & {name_of(line) for line in requirements("serving", "tabular")}


def test_what_services_import_is_declared() -> None:
    distributions = packages_distributions()
    declared = {name_of(line) for line in requirements("services", "feedback", "console", "encrypted")}
    for path in sorted((ROOT / "services").rglob("*.py")):
        for name in imported(path):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top not in (
                "services",
                "contracts",
                "feature_repo",
                "__future__",
            ):
                found = {name_of(one).replace(".", "-") for one in distributions[top]}
                assert found & declared, f"{path.name} imports {name}, which no extra of services declares"


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def test_the_serving_extra_has_no_training_packages() -> None:
    extra = {name_of(line) for line in requirements("services")}
    assert not extra & {"torch", "kfp", "mlflow", "mlflow-skinny", "feast", "pandas", "scikit-learn"}


def test_every_requirement_is_pinned_and_fits_its_range() -> None:
    from packaging.requirements import Requirement

    pins = dict(
        line.strip().lower().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    lines = requirements(*project()["optional-dependencies"])
    for line in lines:
        wanted = Requirement(line)
        pinned = pins.get(name_of(line))
        assert pinned is not None, f"{line} has no pin in constraints.txt"
        assert wanted.specifier.contains(pinned, prereleases=True), f"{line} does not admit the pin {pinned}"


def test_metrics_are_named_once() -> None:
    """A metric name is written out in contracts.metric_names and nowhere else."""
    written = re.compile(r"[\"']fairlead_[a-z_]+_(total|seconds|requests|score|info)[\"']")
    places = {relative(p) for p in SOURCES if written.search(p.read_text(encoding="utf-8"))}
    assert places == {"contracts/metric_names.py"}


PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "pipelines" / "tasks").rglob("*.md")),
]
TOP = (*PACKAGES, "tests", "helm", "docs")


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_and_modules_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"`([\w./-]+)`", page.read_text(encoding="utf-8"))
    files = {name for name in named if name.partition("/")[0] in TOP and "/" in name}
    ours = [name for name in PACKAGES if name != "fairlead"]  # fairlead.tasks is a group of entry points
    modules = {name for name in named if re.fullmatch(rf"({'|'.join(ours)})(\.\w+)+", name)}
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []
    assert [name for name in sorted(modules) if not is_there(name)] == []


def is_there(dotted: str) -> bool:
    """A module, an attribute of one that its source mentions, or a value of the chart with the name of a package."""
    chart = ROOT.joinpath("helm", dotted.partition(".")[0], "values.yaml")
    if chart.is_file() and re.search(rf"^{dotted.split('.')[1]}:", chart.read_text(encoding="utf-8"), re.MULTILINE):
        return True
    path = ROOT.joinpath(*dotted.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    homes = (path.parent.with_suffix(".py"), path.parent / "__init__.py", path.parent.parent.with_suffix(".py"))
    return any(re.search(rf"\b{path.name}\b", home.read_text(encoding="utf-8")) for home in homes if home.is_file())
