"""``fairlead run --profile <a cluster's>``: the same workflow on Kubeflow Pipelines, followed as a local run is."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from deploy.cli.cluster.capacity import Ask, asks_of, check
from deploy.cli.cluster.kfp_api import connect, experiment_id, explained
from deploy.cli.cluster.kube import Kube
from deploy.cli.cluster.port_forward import use_storage
from deploy.cli.cluster_runs.step_resources import memory_before, of_pods, runs_of, step_needs
from deploy.cli.cluster_runs.upload import upload_source
from deploy.cli.terminal.output import console

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from deploy.cli.cluster.cluster_settings import Cluster, Profile
    from deploy.cli.runs.workflow import RunRequest
    from pipelines.resources import Placement, Resources

WORKFLOW = "full"


@dataclass(frozen=True, kw_only=True)
class Placing:
    """What a run on a cluster may be asked for beside its task.

    cron: five fields in `timezone` ("" is the cluster's), empty for one run now. name: of the schedule.
    """

    image: str = ""
    cron: str = ""
    name: str = ""
    timezone: str = ""
    train_gpus: int = 0
    train_nodes: int = 1

    def words(self) -> list[str]:
        """The options of ``fairlead run`` that say this."""
        given = {"--image": self.image, "--cron": self.cron, "--name": self.name, "--timezone": self.timezone}
        words = [f"{option} {shlex.quote(value)}" for option, value in given.items() if value]
        words += [f"--train-gpus {self.train_gpus}"] if self.train_gpus else []
        return words + ([f"--train-nodes {self.train_nodes}"] if self.train_nodes > 1 else [])


def submit(profile: Profile, request: RunRequest, placing: Placing) -> tuple[Any, str]:
    """Compile for the cluster and start the run.

    Returns:
        The KFP client, and the id of the run.

    Raises:
        PlatformError: ``code="kfp"``: Kubeflow Pipelines does not answer or refuses the run.
    """
    assert profile.cluster is not None
    with tempfile.TemporaryDirectory(prefix="fairlead-compile-") as folder:
        client = connect(profile.cluster)
        file, given = prepared(profile, request, placing, Path(folder), runs_of(client, request.task))
        return client, _start(client, profile.cluster, request, file, given)


def prepared(
    profile: Profile, request: RunRequest, placing: Placing, folder: Path, before: Sequence[str] = ()
) -> tuple[Path, dict[str, Any]]:
    """The compiled workflow in `folder`, and its parameters for pods; rows of this machine are copied to S3.

    before: ids of earlier runs of the task, the newest first; what they took is asked for.
    """
    from pipelines.run_settings import tasks_of
    from pipelines.runner import RunSpec, arguments, asked

    cluster = profile.cluster
    assert cluster is not None
    use_storage(cluster)
    where = pod_endpoints(profile)
    source = upload_source(request.source, where.uri("data"))
    spec = RunSpec(
        run_id=request.run_id,
        task=request.task,
        config=request.config,
        source=source,
        endpoints=where,
        nonce=request.nonce,
    )
    each = tasks_of(request.settings) == "each"
    given = arguments(spec, where) if each else asked(spec, where)
    if placing.cron:
        given["run"] = ""  # every run makes an id of its own
    needs = step_needs(request, placing, memory_before(record_root(where), request.recipe, before))
    if placing.train_nodes > 1:
        given["spread"] = distributed_job(cluster, where, placing, needs["train"])
    placed = placement(profile, placing, request, needs)
    for note in _looked_at(cluster, placed, placing, needs, request):
        console(stderr=True).print(note, markup=False, soft_wrap=True)
    return compiled(placed, folder, request.task), given


def _looked_at(
    cluster: Cluster, placed: Placement, placing: Placing, needs: Mapping[str, Resources], request: RunRequest
) -> list[str]:
    """What is to be said of the nodes before the run starts; of a schedule only what nobody could look at."""
    from pipelines.run_settings import growing
    from pipelines.steps.calls import graph
    from pipelines.tasks import get_task

    asks = asks_of(graph(WORKFLOW, get_task(request.task)), placed)
    if placing.train_nodes > 1:
        asks.append(Ask(name="training", step="train", needs=needs["train"], pods=placing.train_nodes))
    notes = check(Kube(cluster.namespace, cluster.context), asks, growing(request.settings))
    return notes if not placing.cron else []


def pod_endpoints(profile: Profile) -> Endpoints:
    """The addresses as pods see them: a scratch folder for what has none, and none on this machine.

    Raises:
        PlatformError: ``code="local_address"``: an address that pods do not share.
    """
    assert profile.cluster is not None
    given = profile.model_dump(exclude={"cluster"}) | {"home": profile.cluster.scratch, "runs": "", "cache": ""}
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


def placement(
    profile: Profile,
    placing: Placing,
    request: RunRequest | None = None,
    needs: Mapping[str, Resources] | None = None,
) -> Any:
    """What the compiled steps carry: image, needs, addresses, S3 by a Secret, the labels that policies admit."""
    from pipelines.io.record import SCHEDULE
    from pipelines.resources import Placement
    from pipelines.run_settings import tasks_of
    from pipelines.values import ENDPOINTS

    cluster = profile.cluster
    assert cluster is not None
    return Placement(
        cluster=True,
        image=placing.image or cluster.image,
        tasks=tasks_of(request.settings if request else {}),
        needs=of_pods(needs if needs is not None else step_needs(request, placing, {}), placing),
        environment={
            **_environment(cluster),
            ENDPOINTS: pod_endpoints(profile).model_dump_json(),
            **({SCHEDULE: placing.name} if placing.cron else {}),
        },
        secrets=_secrets(cluster),
        labels={f"fairlead.io/access-{part}": "true" for part in cluster.needs},
        record=record_root(profile),
    )


def _environment(cluster: Cluster) -> dict[str, str]:
    endpoint = {"AWS_ENDPOINT_URL": cluster.storage.endpoint} if cluster.storage.endpoint else {}
    return {**endpoint, "AWS_REGION": cluster.storage.region, "HOME": "/tmp", "MPLCONFIGDIR": "/tmp"}


def _secrets(cluster: Cluster) -> dict[str, tuple[str, str]]:
    secret, redis = cluster.storage.secret, cluster.redis
    found = {}
    if secret.name:
        found["AWS_ACCESS_KEY_ID"] = (secret.name, secret.user_key)
        found["AWS_SECRET_ACCESS_KEY"] = (secret.name, secret.password_key)
    if redis.name:
        found["FAIRLEAD_REDIS_PASSWORD"] = (redis.name, redis.password_key)
    return found


def distributed_job(cluster: Cluster, where: Endpoints, placing: Placing, needs: Resources) -> str:
    """The pods, each with `needs`, that the training step has to make, as JSON of `DistributedJob`."""
    from pipelines.training.pods import DistributedJob

    return DistributedJob(
        nodes=placing.train_nodes,
        processes=max(1, needs.gpus),
        gpus=needs.gpus,
        accelerator=needs.accelerator,
        cpu=needs.cpu,
        memory=needs.memory,
        node_selector=dict(needs.node_selector),
        tolerations=[dict(item) for item in needs.tolerations],
        priority_class=needs.priority_class,
        image=placing.image or cluster.image,
        namespace=cluster.namespace,
        service_account=cluster.service_account,
        place=storage.join(where.uri("data"), ".distributed_jobs"),
        environment=_environment(cluster),
        secrets={k: v for k, v in _secrets(cluster).items() if k.startswith("AWS_")},
        labels={"fairlead.io/access-s3": "true"},
    ).model_dump_json()


def compiled(where: Placement, folder: Path, task: str) -> Path:
    """The workflow's IR with the steps of a task and its Kubernetes part, checked."""
    from pipelines.tasks import get_task
    from pipelines.workflows import compile_workflows

    (file,) = compile_workflows(folder, where, [WORKFLOW], get_task(task))
    return file


def _start(client: Any, cluster: Cluster, request: RunRequest, file: Path, given: dict[str, Any]) -> str:
    with explained("Kubeflow Pipelines refused the run", prints=True):
        experiment = experiment_id(client, request.task)
        run = client.run_pipeline(
            experiment, request.run_id, str(file), params=given, service_account=cluster.service_account
        )
    return str(run.run_id)
