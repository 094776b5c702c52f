"""KFP components, one per step and one for those that tasks add; what their bodies call is in `pipelines.steps.calls`.

No ``from __future__ import annotations`` here: KFP reads the annotations as objects. A body is shipped as source text,
so it sees nothing of this module. `store` and `nonce` are used by no step: they are part of the cache key, as is
`code_version`, because neither KFP's local nor its cluster cache sees the code of a package; the first step of a
workflow also compares it with the code that it has, which on a cluster is the image's.
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from pipelines.resources import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    task: str, config: str, source: str, endpoints: str, code_version: str, nonce: str, manifest: Output[Artifact]
) -> NamedTuple("Ingested", [("dataset", str), ("version", str)]):
    from pipelines.steps.calls import run_step, version_made

    run_step("ingest", locals())
    return version_made(manifest.path)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(task: str, config: str, dataset: str, code_version: str, nonce: str, clean: Output[Dataset]):
    from pipelines.steps.calls import run_step

    run_step("validate", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def materialise(
    task: str,
    config: str,
    clean: Input[Dataset],
    data_version: str,
    endpoints: str,
    code_version: str,
    store: str,
    nonce: str,
    features: Output[Artifact],
):
    from pipelines.steps.calls import run_step

    run_step("materialise", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def build_dataset(
    task: str,
    config: str,
    clean: Input[Dataset],
    code_version: str,
    nonce: str,
    dataset: Output[Dataset],
    features: Input[Artifact] = None,
):
    from pipelines.steps.calls import run_step

    run_step("build_dataset", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    task: str,
    config: str,
    dataset: Input[Dataset],
    checkpoints: str,
    code_version: str,
    nonce: str,
    spread: str,
    model: Output[Model],
):
    from pipelines.steps.calls import run_step

    run_step("train", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    task: str,
    config: str,
    dataset: Input[Dataset],
    model: Input[Model],
    data_version: str,
    source: str,
    code_version: str,
    nonce: str,
    candidate: Output[Model],
):
    from pipelines.steps.calls import run_step

    run_step("evaluate", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(
    task: str,
    config: str,
    dataset: Input[Dataset],
    candidate: Input[Model],
    endpoints: str,
    decision: Output[Artifact],
):
    from pipelines.steps.calls import run_step

    run_step("gate", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    task: str,
    config: str,
    candidate: Input[Model],
    decision: Input[Artifact],
    endpoints: str,
    run: str,
    promote: bool,
    published: Output[Artifact],
):
    from pipelines.steps.calls import run_step

    run_step("register", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def added(
    step: str,
    task: str,
    config: str,
    checkpoints: str,
    code_version: str,
    nonce: str,
    out: Output[Artifact],
    clean: Input[Artifact] = None,
    built: Input[Artifact] = None,
    model: Input[Artifact] = None,
):
    from pipelines.steps.calls import run_step

    run_step(step, locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def batch_score(model: str, source: str, endpoints: str, settings: str, scores: Output[Dataset]):
    from pipelines.steps.calls import run_step

    run_step("batch_score", locals())
