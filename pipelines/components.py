"""KFP components, one per step and one for those that tasks add; what their bodies call is in `pipelines.steps.calls`.

No ``from __future__ import annotations`` here: KFP reads the annotations as objects. A body is shipped as source text,
so it sees nothing of this module. ``context`` is JSON of what a step is told, and of no more than that: it is a part of
the cache key. What earlier steps made, and what a page or a schedule names by itself, are parameters of their own.
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from pipelines.resources import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(context: str, manifest: Output[Artifact]) -> NamedTuple("Ingested", [("dataset", str), ("version", str)]):
    from pipelines.steps.calls import run_step, version_made

    run_step("ingest", locals())
    return version_made(manifest.path)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(context: str, dataset: str, clean: Output[Dataset]):
    from pipelines.steps.calls import run_step

    run_step("validate", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def materialise(context: str, clean: Input[Dataset], data_version: str, features: Output[Artifact]):
    from pipelines.steps.calls import run_step

    run_step("materialise", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def build_dataset(context: str, clean: Input[Dataset], dataset: Output[Dataset], features: Input[Artifact] = None):
    from pipelines.steps.calls import run_step

    run_step("build_dataset", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(context: str, dataset: Input[Dataset], model: Output[Model]):
    from pipelines.steps.calls import run_step

    run_step("train", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(context: str, dataset: Input[Dataset], model: Input[Model], data_version: str, candidate: Output[Model]):
    from pipelines.steps.calls import run_step

    run_step("evaluate", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(context: str, dataset: Input[Dataset], candidate: Input[Model], decision: Output[Artifact]):
    from pipelines.steps.calls import run_step

    run_step("gate", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(context: str, candidate: Input[Model], decision: Input[Artifact], run: str, published: Output[Artifact]):
    from pipelines.steps.calls import run_step

    run_step("register", locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def added(
    context: str,
    step: str,
    out: Output[Artifact],
    clean: Input[Artifact] = None,
    built: Input[Artifact] = None,
    model: Input[Artifact] = None,
):
    from pipelines.steps.calls import run_step

    run_step(step, locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def batch_score(model: str, source: str, endpoints: str, settings: str, to: str, scores: Output[Dataset]):
    from pipelines.steps.calls import run_step

    run_step("batch_score", locals())
