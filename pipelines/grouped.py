"""KFP components of several steps, for a cluster: each body only imports and calls.

Between tasks go texts: values of the run, and addresses of what steps made, so that KFP's own cache can answer the
training of two runs that train the same. The outputs are what Kubeflow's page shows; see `pipelines.components` for
why there is no ``from __future__ import annotations``.
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, ClassificationMetrics, Markdown, Metrics, Output

from pipelines.resources import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(
    steps: str,
    task: str,
    data_report: Output[HTML],
    recipe: str = "",
    config: str = "",
    settings: str = "",
    source: str = "",
    dataset: str = "",
    endpoints: str = "",
    code_version: str = "",
    run: str = "",
    promote: bool = True,
    nonce: str = "",
    spread: str = "",
) -> NamedTuple("Prepared", [("training", str), ("values", str)]):
    from pipelines.groups import begin

    return begin(locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(steps: str, values: str) -> str:
    from pipelines.groups import go_on

    return go_on(locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def search(values: str, worker: int):
    from pipelines.groups import try_out

    try_out(locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def judge(
    steps: str,
    values: str,
    metrics: Output[Metrics],
    classes: Output[ClassificationMetrics],
    card: Output[HTML],
    gate: Output[Markdown],
    trained: str = "",
):
    from pipelines.groups import go_on

    go_on(locals())


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare_train_judge(
    steps: str,
    task: str,
    data_report: Output[HTML],
    metrics: Output[Metrics],
    classes: Output[ClassificationMetrics],
    card: Output[HTML],
    gate: Output[Markdown],
    recipe: str = "",
    config: str = "",
    settings: str = "",
    source: str = "",
    dataset: str = "",
    endpoints: str = "",
    code_version: str = "",
    run: str = "",
    promote: bool = True,
    nonce: str = "",
    spread: str = "",
):
    from pipelines.groups import begin

    begin(locals())
