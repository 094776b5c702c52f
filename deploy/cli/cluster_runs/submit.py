"""``fairlead run --profile <a cluster's>``: the same workflow on Kubeflow Pipelines, followed as a local run is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from deploy.cli.cluster.capacity import Ask, asks_of, check
from deploy.cli.cluster.kfp_api import connect, experiment_id, explained
from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.port_forward import use_storage
from deploy.cli.cluster_runs.data_workers import ask_of, engine_of, needs_with_head
from deploy.cli.cluster_runs.step_resources import memory_known, of_pods, runs_of, step_needs
from deploy.cli.cluster_runs.upload import upload_source
from deploy.cli.terminal.output import console
from pipelines.run import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deploy.cli.cluster.cluster_settings import Cluster, Profile
    from pipelines.resources import Placement, Resources

WORKFLOW = "full"


def submit(profile: Profile, run: Run) -> tuple[Any, str, Run]:
    """Compile for the cluster and start the run.

    Returns:
        The KFP client, Kubeflow's id of the run, and what its pods are asked.

    Raises:
        PlatformError: ``code="kfp"``: Kubeflow Pipelines does not answer or refuses the run.
    """
    assert profile.cluster is not None
    with tempfile.TemporaryDirectory(prefix="fairlead-compile-") as folder:
        client = connect(profile.cluster)
        file, ready = prepared(profile, run, Path(folder), runs_of(client, run.task))
        return client, _start(client, profile.cluster, ready, file), ready


def prepared(profile: Profile, run: Run, folder: Path, before: Sequence[str] = ()) -> tuple[Path, Run]:
    """The compiled workflow in `folder`, and the run for pods: rows of this machine are copied to S3.

    before: ids of earlier runs of the task, the newest first; what they took is asked for.
    """
    from pipelines.code_version import code_version

    cluster = profile.cluster
    assert cluster is not None
    use_storage(cluster)
    where = pod_endpoints(profile)
    source, code = upload_source(run.source, where.uri("data")), code_version(run.task)
    needs = step_needs(run, memory_known(run, record_root(where), before))
    needs = needs_with_head(run, needs)
    job = distributed_job(cluster, where, run, needs["train"]) if run.placing.train_nodes > 1 else {}
    ready = run.having(endpoints=where, source=source, code_version=code, distributed_job=job)
    placed = placement(profile, ready, needs)
    for note in _looked_at(cluster, placed, needs, ready):
        console(stderr=True).print(note, markup=False, soft_wrap=True)
    return compiled(placed, folder, run.task, run.workflow), ready


def parameters(run: Run) -> dict[str, Any]:
    """The parameters of the workflow that `prepared` compiles for a run."""
    from pipelines.parameters import parameters_of
    from pipelines.run_settings import tasks_of

    return parameters_of(run, each=tasks_of(run.settings) == "each")


def _looked_at(cluster: Cluster, placed: Placement, needs: Mapping[str, Resources], run: Run) -> list[str]:
    """What is to be said of the nodes before the run starts; of a schedule only what nobody could look at."""
    from pipelines.run_settings import growing
    from pipelines.steps.calls import graph
    from pipelines.tasks import get_task

    asks = asks_of(graph(run.workflow, get_task(run.task)), placed)
    if run.placing.train_nodes > 1:
        asks.append(Ask(name="training", step="train", needs=needs["train"], pods=run.placing.train_nodes))
    if placed.search_pods:
        asks.append(Ask(name="search", step="train", needs=needs["train"], pods=placed.search_pods))
    asks += ask_of(run)
    notes = check(Kube(cluster.namespace, cluster.context), asks, growing(run.settings))
    return [] if run.schedule else notes


def pod_endpoints(profile: Profile) -> Endpoints:
    """The addresses as pods see them: a scratch folder for what has none, and none on this machine.

    Raises:
        PlatformError: ``code="local_address"``: an address that pods do not share.
    """
    assert profile.cluster is not None
    given = profile.model_dump(exclude={"cluster", "prices"}) | {
        "home": profile.cluster.scratch,
        "runs": "",
        "cache": "",
    }
    for name in ("data", "artifacts", "features", "tracking"):
        if "://" not in given[name] or given[name].startswith("sqlite:"):
            raise PlatformError(
                f"{name} must be an address that pods share, and is {given[name] or 'a folder below home'!r}",
                fix=f"set {name} of the profile: {'http://...' if name == 'tracking' else 's3://bucket/prefix'}",
                code="local_address",
            )
    return Endpoints(**given)


def record_root(where: Endpoints) -> str:
    """The folder that runs on a cluster leave their record in, see pipelines/io/record.py."""
    return storage.join(where.uri("data"), ".runs")


def placement(profile: Profile, run: Run | None = None, needs: Mapping[str, Resources] | None = None) -> Any:
    """What the compiled steps carry: image, needs, addresses, S3 by a Secret, the labels that policies admit.

    run: without one, for a workflow that any task may be run by.
    """
    from pipelines.cost import VARIABLE, told
    from pipelines.io.record import SCHEDULE
    from pipelines.resources import Placement
    from pipelines.run_settings import tasks_of
    from pipelines.values import ENDPOINTS

    cluster = profile.cluster
    assert cluster is not None
    asked = run or Run()
    asks = of_pods(needs if needs is not None else step_needs(asked, {}), asked.placing)
    return Placement(
        cluster=True,
        image=asked.placing.image or cluster.image,
        tasks=tasks_of(asked.settings),
        needs=asks,
        environment={
            **_environment(cluster),
            ENDPOINTS: pod_endpoints(profile).model_dump_json(),
            **engine_of(cluster, pod_endpoints(profile), asked, _environment(cluster), _secrets(cluster)),
            **({SCHEDULE: asked.schedule} if asked.schedule else {}),
            VARIABLE: told(profile.prices, asks),
        },
        secrets=_secrets(cluster),
        labels={f"fairlead.io/access-{part}": "true" for part in cluster.needs},
        record=record_root(profile),
        search_pods=search_pods(asked),
    )


def search_pods(run: Run) -> int:
    """How many pods try out settings beside each other before the training; they need trials in an SQL server."""
    from pipelines.run_settings import tasks_of

    search = run.config.get("search") or {}
    storage, pods = str(search.get("storage") or ""), int(search.get("workers") or 1)
    shared = bool(search.get("trials")) and "://" in storage and not storage.startswith("sqlite")
    alone = run.workflow not in ("full", "training") or tasks_of(run.settings) == "each"
    return pods if shared and pods > 1 and not alone else 0


def _environment(cluster: Cluster) -> dict[str, str]:
    endpoint = {"AWS_ENDPOINT_URL": cluster.storage.endpoint} if cluster.storage.endpoint else {}
    return {**endpoint, "AWS_REGION": cluster.storage.region, "HOME": "/tmp", "MPLCONFIGDIR": "/tmp"}


def _secrets(cluster: Cluster) -> dict[str, tuple[str, str]]:
    secret, redis, mongodb = cluster.storage.secret, cluster.redis, cluster.mongodb
    found = {}
    if secret.name:
        found["AWS_ACCESS_KEY_ID"] = (secret.name, secret.user_key)
        found["AWS_SECRET_ACCESS_KEY"] = (secret.name, secret.password_key)
    if redis.name:
        found["FAIRLEAD_REDIS_PASSWORD"] = (redis.name, redis.password_key)
    if mongodb.name:
        found["FAIRLEAD_MONGODB_USERNAME"] = (mongodb.name, mongodb.user_key)
        found["FAIRLEAD_MONGODB_PASSWORD"] = (mongodb.name, mongodb.password_key)
    if cluster.search.name:
        found["FAIRLEAD_SEARCH_PASSWORD"] = (cluster.search.name, cluster.search.password_key)
    if cluster.pii.name:
        found["FAIRLEAD_PII_KEY"] = (cluster.pii.name, cluster.pii.password_key)
    return found


def distributed_job(cluster: Cluster, where: Endpoints, run: Run, needs: Resources) -> dict[str, Any]:
    """The pods, each with `needs`, that the training step has to make, as JSON of `DistributedJob`."""
    from pipelines.training.pods import DistributedJob

    job = DistributedJob(
        nodes=run.placing.train_nodes,
        processes=max(1, needs.gpus),
        gpus=needs.gpus,
        accelerator=needs.accelerator,
        cpu=needs.cpu,
        memory=needs.memory,
        node_selector=dict(needs.node_selector),
        tolerations=[dict(item) for item in needs.tolerations],
        priority_class=needs.priority_class,
        image=run.placing.image or cluster.image,
        namespace=cluster.namespace,
        service_account=cluster.service_account,
        place=storage.join(where.uri("data"), ".distributed_jobs"),
        environment=_environment(cluster),
        secrets={k: v for k, v in _secrets(cluster).items() if k.startswith("AWS_")},
        labels={"fairlead.io/access-s3": "true"},
    )
    return job.model_dump(mode="json")


def compiled(where: Placement, folder: Path, task: str, workflow: str = WORKFLOW) -> Path:
    """The workflow's IR with the steps of a task and its Kubernetes part, checked."""
    from pipelines.tasks import get_task
    from pipelines.workflows import compile_workflows

    (file,) = compile_workflows(folder, where, [workflow], get_task(task))
    return file


def _start(client: Any, cluster: Cluster, run: Run, file: Path) -> str:
    with explained("Kubeflow Pipelines refused the run", prints=True):
        experiment = experiment_id(client, run.task)
        made = client.run_pipeline(
            experiment, run.run_id, str(file), params=parameters(run), service_account=cluster.service_account
        )
    return str(made.run_id)
