"""KFP components: each body only imports and calls a step.

No ``from __future__ import annotations`` here: KFP reads the annotations as objects. A body is shipped as source text,
so it sees nothing of this module. `store` and `nonce` are used by no body: they are part of the cache key, as is
`code_version`, because neither KFP's local nor its cluster cache sees the code of a package; the first step of a
workflow also compares it with the code that it has, which on a cluster is the image's. A step is imported after its
start is reported, so that its time includes all that it costs.
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from pipelines.resources import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    task: str, config: str, source: str, endpoints: str, code_version: str, nonce: str, manifest: Output[Artifact]
) -> NamedTuple("Ingested", [("dataset", str), ("version", str)]):
    from pipelines.steps import events, retries

    with events.running("ingest", task, code_version) as done:
        from contracts.endpoints import Endpoints
        from pipelines.steps import ingest as step
        from pipelines.steps import versions

        root = Endpoints.model_validate_json(endpoints).uri("data")
        version = retries.with_retries("ingest", step.ingest, task, config, source, root, manifest.path)
        done({"version": version, **versions.summary(manifest.path)})
    return (versions.address(manifest.path), version)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(task: str, config: str, dataset: str, code_version: str, nonce: str, clean: Output[Dataset]):
    from pipelines.steps import events, retries

    with events.running("validate", task, code_version) as done:
        from pipelines.steps import validate as step

        given = (task, config, dataset, clean.path)
        done(retries.with_retries("validate", step.validate, *given, fresh=clean.path))


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
    from pipelines.steps import events, retries

    with events.running("materialise") as done:
        from pipelines.steps import materialise as step

        given = (task, config, clean.path, data_version, endpoints, features.path)
        done(retries.with_retries("materialise", step.materialise, *given))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def build_dataset(
    task: str,
    config: str,
    clean: Input[Dataset],
    features: Input[Artifact],
    code_version: str,
    nonce: str,
    dataset: Output[Dataset],
):
    from pipelines.steps import events, retries

    with events.running("build_dataset") as done:
        from pipelines.steps import build_dataset as step

        given = (task, config, clean.path, features.path, dataset.path)
        done(retries.with_retries("build_dataset", step.build_dataset, *given, fresh=dataset.path))


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
    from pipelines.steps import events, retries

    with events.running("train") as done:
        from pipelines.steps import train as step

        folder = step.checkpoint_folder(checkpoints, task, config, dataset.path, code_version, nonce)
        given = (task, config, dataset.path, folder, model.path, spread)
        done(retries.with_retries("train", step.train, *given))


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
    from pipelines.steps import events, retries

    with events.running("evaluate") as done:
        import json

        from pipelines.steps import evaluate as step

        lineage = {"code_version": code_version, "data_version": data_version, "source": source or "built-in"}
        given = (task, config, dataset.path, model.path, json.dumps(lineage), candidate.path)
        done(retries.with_retries("evaluate", step.evaluate, *given, fresh=candidate.path))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(
    task: str,
    config: str,
    dataset: Input[Dataset],
    candidate: Input[Model],
    endpoints: str,
    decision: Output[Artifact],
):
    from pipelines.steps import events, retries

    with events.running("gate") as done:
        from pipelines.steps import gate as step

        given = (task, config, dataset.path, candidate.path, endpoints, decision.path)
        done({"passed": retries.with_retries("gate", step.gate, *given)})


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
    from pipelines.steps import events, retries

    with events.running("register") as done:
        from pipelines.steps import register as step

        given = (task, config, candidate.path, decision.path, endpoints, run, promote, published.path)
        done(retries.with_retries("register", step.register, *given))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def batch_score(model: str, source: str, endpoints: str, settings: str, scores: Output[Dataset]):
    from pipelines.steps import events, retries

    with events.running("batch_score") as done:
        from pipelines.steps import batch_score as step

        given = (model, source, endpoints, scores.path, settings)
        done(retries.with_retries("batch_score", step.batch_score, *given))
