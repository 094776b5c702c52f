"""``data.engine=ray`` on a cluster: what steps are told of the pods that they may make, and what those need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from contracts import storage
from deploy.cli.cluster.capacity import Ask
from pipelines.data_engines import HEAD, MEMORY, STEPS, WORKERS, by_operator, described, shares_out, with_ray
from pipelines.resources import Resources

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints
    from deploy.cli.cluster.cluster_settings import Cluster
    from pipelines.run import Run


def engine_of(
    cluster: Cluster,
    where: Endpoints,
    run: Run,
    environment: Mapping[str, str],
    secrets: Mapping[str, tuple[str, str]],
) -> dict[str, str]:
    """The variable that tells steps their engine; workers get the image and what reaches S3 and the registry."""
    from pipelines.io.pods import PodSettings

    pods = PodSettings(
        image=run.placing.image or cluster.image,
        namespace=cluster.namespace,
        service_account=cluster.service_account,
        environment=dict(environment),
        secrets={name: key for name, key in secrets.items() if name.startswith("AWS_")},
        labels={f"fairlead.io/access-{part}": "true" for part in cluster.needs if part in ("s3", "mlflow")},
    )
    place = storage.join(where.uri("data"), ".parts")
    return described(run.settings, place, pods.model_dump(mode="json", exclude_defaults=True))


def needs_with_head(run: Run, needs: Mapping[str, Resources]) -> dict[str, Resources]:
    """`needs` of steps, with room for the head of Ray in those whose work is shared out."""
    if not shares_out(run.settings):
        return dict(needs)
    return {
        step: replace(need, memory=with_ray(need.memory)) if step in STEPS else need for step, need in needs.items()
    }


def ask_of(run: Run) -> list[Ask]:
    """The pods of workers, for who looks whether nodes can take them."""
    if not shares_out(run.settings):
        return []
    memory = with_ray(run.settings.get("data.memory", MEMORY))
    needs = Resources(cpu="1", memory=memory)
    asks = [Ask(name="data workers", step="materialise", needs=needs, pods=run.settings.get("data.workers", WORKERS))]
    if by_operator(run.settings):
        asks.append(
            Ask(name="head of Ray", step="materialise", needs=Resources(cpu="1", memory=with_ray(HEAD)), pods=1)
        )
    return asks
