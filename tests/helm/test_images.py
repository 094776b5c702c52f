"""Images: ours are built in layers that cache and run without rights; others' are listed with their versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.program import CHARTS, helm

ROOT = CHARTS.parent
DOCKERFILES = sorted((ROOT / "deploy" / "images").glob("*.Dockerfile"))
STACK = yaml.safe_load((ROOT / "deploy" / "stack.yaml").read_text())


def images(text: str) -> set[str]:
    """Every image that a render names, in pods and in settings of those that start pods."""
    return set(re.findall(r"\b((?:docker\.io|ghcr\.io|quay\.io|gcr\.io)/[\w./-]+:[\w.-]+)", text))


def test_every_image_of_others_that_charts_name_is_in_the_stack() -> None:
    everything = (
        "pipelines.ui.enabled=true,monitoring.alertmanager.enabled=true,monitoring.alertmanager.existingSecret=a,"
        "workbench.users={ada},workbench.oidc.enabled=true,workbench.oidc.issuer=https://id.example.com,"
        "workbench.oidc.existingSecret=a,workbench.oidc.people.ada=a@example.com,workbench.oidc.url=https://{user}.example.com"
    )
    done = helm("template", "fairlead", str(CHARTS / "platform"), "--set", everything)
    assert done.returncode == 0, done.stderr
    model = CHARTS / "model-service"
    values = str(model / "ci" / "minimal-values.yaml")
    served = helm("template", "toy", str(model), "-f", values, "--set", "rollouts.enabled=true")
    assert served.returncode == 0, served.stderr
    written = helm("template", "toy", str(model), "-f", str(model / "ci" / "vllm-values.yaml"))
    assert written.returncode == 0, written.stderr
    named = {
        image
        for image in images(done.stdout + served.stdout + written.stdout)
        if not image.startswith("ghcr.io/fairlead/")
    }
    assert named == {f"{item['image']}:{item['version']}" for item in STACK["images"]}


def test_the_images_that_ours_are_built_on_are_in_the_stack() -> None:
    named = {re.findall(r"^ARG BASE=(\S+)", file.read_text(), re.MULTILINE)[0] for file in DOCKERFILES}
    assert {f"docker.io/library/{base}" for base in named} == {f"{i['image']}:{i['version']}" for i in STACK["build"]}


def test_what_the_stack_says_of_a_digest_is_one() -> None:
    """Empty where it is not known: a mirror fills it in."""
    for item in [*STACK["images"], *STACK["build"]]:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", item.get("digest") or f"sha256:{'0' * 64}"), item["image"]


PARTS = {
    "feature-store": "feature-store",
    "monitoring": "monitoring",
    "pipelines": "pipelines",
    "demo": "model-service",
}


@pytest.mark.parametrize("chart", sorted(path.parent.name for path in CHARTS.glob("*/values.yaml")))
def test_every_image_of_a_chart_can_be_pulled_by_digest(chart: str) -> None:
    paths = _image_paths(_values(chart))
    if chart == "platform":
        paths += [f"{part}.{path}" for part, of in PARTS.items() for path in _image_paths(_values(of))]
    digest = "sha256:" + "ab" * 32
    file = min((CHARTS / chart / "ci").glob("*-values.yaml"))
    done = helm(
        "template",
        "fairlead",
        str(CHARTS / chart),
        "-f",
        str(file),
        *(f"--set={path}.digest={digest}" for path in paths),
        *([f"--set=rollouts.enabled=true,model.digest={'ab' * 32}"] if chart == "model-service" else []),
    )
    assert done.returncode == 0, done.stderr
    pinned = set(re.findall(rf"([\w./-]+:[\w.-]+)@{digest}", done.stdout))
    assert pinned
    assert images(done.stdout) == pinned


def _values(chart: str) -> Any:
    return yaml.safe_load((CHARTS / chart / "values.yaml").read_text())


def _image_paths(values: Any, at: str = "") -> list[str]:
    """Dotted keys of everything in `values` that is an image."""
    if not isinstance(values, dict):
        return []
    if {"repository", "digest"} <= set(values):
        return [at]
    return [path for key, value in values.items() for path in _image_paths(value, f"{at}.{key}".lstrip("."))]


def steps(file: Path) -> list[str]:
    """Instructions of a Dockerfile, continuation lines joined, comments left out."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return [step for step in "\n".join(lines).replace("\\\n", " ").splitlines() if step.strip()]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_dependencies_come_before_code_and_the_last_user_has_no_rights(file: Path) -> None:
    made = steps(file)
    install = next(i for i, step in enumerate(made) if "pip install --no-compile" in step)
    code = min(i for i, step in enumerate(made) if re.match(r"COPY (contracts|services|pipelines) ", step))
    assert install < code
    assert [step for step in made if step.startswith("USER")] == ["USER 10001:10001"]
    # What changes with every commit comes last.
    assert max(i for i, step in enumerate(made) if step.startswith("RUN")) < made.index("ARG REVISION=unknown")


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_what_is_proven_to_load_leaves_its_bytecode_in_the_image(file: Path) -> None:
    (proof,) = [step for step in steps(file) if "compileall" in step]
    assert proof.startswith("RUN export PYTHONDONTWRITEBYTECODE= ")
    assert " python -c 'import " in proof.split("compileall")[1]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_the_labels_say_what_and_which_commit(file: Path) -> None:
    text = file.read_text()
    for label in ("title", "description", "source", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in text


@pytest.mark.parametrize("extras", [["services"], ["pipelines", "feature-store"]], ids="+".join)
def test_requirements_of_an_image_are_those_of_its_extras_without_torch(extras: list[str]) -> None:
    script = ROOT / "deploy" / "images" / "requirements.py"
    done = subprocess.run([sys.executable, str(script), *extras], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert any(line.startswith("pydantic") for line in lines)
    assert any(line.startswith("boto3") for line in lines)
    assert not any(line.startswith("torch") for line in lines)


def test_only_what_images_are_made_of_is_sent_to_the_builder() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied: set[Any] = set()
    for file in DOCKERFILES:
        for step in steps(file):
            if step.startswith("COPY ") and "--from" not in step:
                copied |= {source.split("/")[0] for source in step.split()[1:-1]}
    assert copied == kept


def test_the_recipe_signs_pushed_images_by_digest_and_every_chart(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    for name, said in (("engine", 'echo "ghcr.io/fairlead/x@sha256:1"'), ("cosign", f'echo "$@" >> {tmp_path}/said')):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{said}\n")
        program.chmod(0o755)
    (tmp_path / "build" / "charts").mkdir(parents=True)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["make", "-s", "sign", "ENGINE=engine", "TAG=1", "COSIGN_KEY=k"]
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    assert (done.returncode, "make charts" in done.stderr) == (2, True), done.stderr
    (tmp_path / "build" / "charts" / "platform-1.tgz").touch()
    (tmp_path / "said").unlink()
    subprocess.run(command, cwd=tmp_path, env=path, check=True)
    signed = (tmp_path / "said").read_text().splitlines()
    assert signed[:2] == ["sign --yes --tlog-upload=false --key k ghcr.io/fairlead/x@sha256:1"] * 2
    assert signed[2:] == [
        "sign-blob --yes --tlog-upload=false --key k --output-signature build/charts/platform-1.tgz.sig "
        "build/charts/platform-1.tgz"
    ]
    (tmp_path / "engine").write_text("#!/bin/sh\necho none\n")
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    assert (done.returncode, "it has no digest" in done.stderr) == (2, True)
