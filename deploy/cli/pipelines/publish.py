"""The workflows as pipelines of Kubeflow: uploaded once for each content, so that its page and clients can run them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.cluster import kfp_api
from deploy.cli.cluster_runs.submit import placement

if TYPE_CHECKING:
    from deploy.cli.cluster.cluster_settings import Profile

PREFIX = "fairlead-"
_IN_CLUSTER = 300.0  # seconds that the chart's Job waits for a server that comes up beside it
_PAUSE = 3.0


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One workflow as it would be uploaded; `version` says release and content."""

    name: str
    version: str
    description: str
    file: Path


def compile_all(profile: Profile, folder: Path) -> list[Compiled]:
    """Every workflow for the profile's cluster, below `folder`."""
    from pipelines.code_version import code_version
    from pipelines.tasks import task_names
    from pipelines.workflows import compile_workflows

    code = "\n".join(code_version(task) for task in task_names())
    found = []
    for file in compile_workflows(folder, placement(profile)):
        content = hashlib.sha256(f"{file.read_text(encoding='utf-8')}\n{code}".encode()).hexdigest()[:10]
        description = _described(file)
        name = PREFIX + file.stem.replace("_", "-")
        found.append(Compiled(name=name, version=f"{release()}-{content}", description=description, file=file))
    return found


def release() -> str:
    """The version of the platform that this program is of."""
    try:
        return version("fairlead")
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "0.0.0"


def _described(file: Path) -> str:
    import yaml

    spec = next(yaml.load_all(file.read_text(encoding="utf-8"), yaml.CSafeLoader))
    return str(spec["pipelineInfo"].get("description", ""))


def publish(profile: Profile, wait: float | None = None) -> list[dict[str, Any]]:
    """Upload what is not there yet as the newest version of its pipeline.

    Args:
        wait: Seconds to wait for a server that does not answer; None: some minutes in a cluster, else none.

    Raises:
        PlatformError: ``code="kfp"``.
    """
    with tempfile.TemporaryDirectory(prefix="fairlead-compile-") as folder:
        compiled = compile_all(profile, Path(folder))
        client = _patient(profile, wait)
        known = _known(client)
        return [_published(client, known, each) for each in compiled]


def _patient(profile: Profile, wait: float | None) -> Any:
    assert profile.cluster is not None
    patience = wait if wait is not None else _IN_CLUSTER if "KUBERNETES_SERVICE_HOST" in os.environ else 0.0
    until = time.monotonic() + patience
    while True:
        try:
            return kfp_api.connect(profile.cluster)
        except PlatformError as err:
            if err.code != "kfp" or time.monotonic() + _PAUSE > until:
                raise
            time.sleep(_PAUSE)


def _known(client: Any) -> dict[str, Any]:
    with kfp_api.explained("Kubeflow Pipelines did not list the pipelines"):
        namespace = client.get_user_namespace() or None
        return {
            each.display_name: each for each in kfp_api.every(client.list_pipelines, "pipelines", namespace=namespace)
        }


def _versions(client: Any, pipeline_id: str) -> list[Any]:
    """The newest first."""
    with kfp_api.explained("Kubeflow Pipelines did not list the versions of a pipeline"):
        found = list(
            kfp_api.every(
                client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline_id, sort_by="created_at desc"
            )
        )
    return sorted(found, key=lambda each: str(each.created_at), reverse=True)


def _published(client: Any, known: Mapping[str, Any], each: Compiled) -> dict[str, Any]:
    pipeline = known.get(each.name)
    if pipeline is None:
        with kfp_api.explained(f"Kubeflow Pipelines did not take pipeline {each.name}", prints=True):
            pipeline = _create(client, each)
    there = _versions(client, pipeline.pipeline_id)
    new = not there or not _same(there[0].display_name, each.version)
    if new:
        # One that is there and not the newest: the platform went back to an earlier release.
        again = sum(_same(other.display_name, each.version) for other in there)
        name = f"{each.version}-r{again + 1}" if again else each.version
        with kfp_api.explained(f"Kubeflow Pipelines did not take version {name} of pipeline {each.name}", prints=True):
            made = client.upload_pipeline_version(
                str(each.file), name, pipeline_id=pipeline.pipeline_id, description=each.description or None
            )
    else:
        made = there[0]
    ids = {"pipeline_id": str(pipeline.pipeline_id), "version_id": str(made.pipeline_version_id)}
    page = f"#/pipelines/details/{ids['pipeline_id']}/version/{ids['version_id']}"
    return {"name": each.name, "version": str(made.display_name), **ids, "uploaded": new, "page": page}


def _same(name: str, version: str) -> bool:
    return name == version or name.startswith(f"{version}-r")


def _create(client: Any, each: Compiled) -> Any:
    """A pipeline without a version: an upload would name its first one after the pipeline."""
    import kfp_server_api

    pipeline = kfp_server_api.V2beta1Pipeline(
        name=each.name,
        display_name=each.name,
        description=each.description,
        namespace=client.get_user_namespace() or None,
    )
    return client._pipelines_api.pipeline_service_create_pipeline(pipeline=pipeline)


def published(profile: Profile) -> list[dict[str, Any]]:
    """The pipelines of ours that the cluster has, with the newest version and whether it is that of this release."""
    assert profile.cluster is not None
    client = kfp_api.connect(profile.cluster)
    known = _known(client)
    with tempfile.TemporaryDirectory(prefix="fairlead-compile-") as folder:
        compiled = compile_all(profile, Path(folder))
    found = []
    for each in compiled:
        pipeline = known.get(each.name)
        newest = (_versions(client, pipeline.pipeline_id) or [None])[0] if pipeline else None
        found.append(
            {
                "name": each.name,
                "pipeline_id": pipeline.pipeline_id if pipeline else None,
                "version": newest.display_name if newest else None,
                "version_id": newest.pipeline_version_id if newest else None,
                "created": newest.created_at.isoformat() if newest and newest.created_at else None,
                "current": newest is not None and _same(newest.display_name, each.version),
                "expected": each.version,
                "description": each.description,
                "parameters": _parameters(newest),
            }
        )
    return found


def _parameters(newest: Any) -> list[str]:
    """What must be given to run it."""
    spec = (newest.pipeline_spec if newest else None) or {}
    spec = json.loads(spec) if isinstance(spec, str) else spec
    inputs = spec.get("pipeline_spec", spec).get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    return sorted(name for name, field in inputs.items() if not field.get("isOptional") and "defaultValue" not in field)
