"""``fairlead deploy`` and ``fairlead rollback --env``: one Helm release per model, by immutable version."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError
from deploy.cli.cluster.kube import Kube, output, program, refused
from deploy.cli.cluster.pod_diagnosis import Trouble, pod_troubles
from deploy.cli.profiles.audit_record import note
from deploy.cli.profiles.loading import deployment_file, load_cluster, load_endpoints, load_profile
from deploy.cli.releases.release_values import first_values, model_section, pin, release_name
from deploy.cli.terminal.output import emit
from pipelines.io.files import write_text

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.bundle import Bundle
    from contracts.registry import ModelVersion, Registry

CHART = Path(__file__).resolve().parents[3] / "helm" / "model-service"
_LOOK = 3.0  # seconds between looks at the pods while helm waits


def deploy_model(
    env: str, ref: str, source: str | None, chart: Path | None, timeout: int, write_only: bool, as_json: bool
) -> None:
    """Resolve `ref` once, write its version into the environment's file, and make the release serve it.

    source: the profile whose registry `ref` is resolved in; its bundle is then published in the environment's too.
    """
    profile, cluster = load_profile(env), load_cluster(env)
    version, bundle = _version(env, ref, source)
    file, kube = deployment_file(env, version.name), Kube(cluster.namespace, cluster.context)
    before = file.read_text(encoding="utf-8") if file.exists() else None
    section = model_section(version, bundle.document.modality)
    write_text(file, pin(file, section, first_values(profile, bundle.document.feature_service is not None)))
    release = release_name(version.name)
    if not write_only:
        try:
            _upgrade(kube, release, file, chart or CHART, timeout)
        except (PlatformError, KeyboardInterrupt):
            # Helm has gone back to what was served before; so does the file that says what is served.
            file.unlink() if before is None else write_text(file, before)
            raise
    document = {"release": release, "namespace": cluster.namespace, **section, "values": str(file)}
    action = "write_release" if write_only else "deploy"
    note(load_endpoints(env), action, f"{version.name}:{version.version}", evidence={**document, "env": env})

    def show(out: Console) -> None:
        done = "is written for" if write_only else "is served by"
        out.print(f"[bold]{version.name}:{version.version}[/] {done} release {release} in {cluster.namespace}")
        out.print(f"Values   {file}", soft_wrap=True)
        if not write_only:
            out.print(f"Ask      fairlead predict {version.name} --env {env} --input ROWS.jsonl", soft_wrap=True)
            out.print(f"Back     fairlead rollback {version.name} --env {env}")

    emit(document, as_json, show)


def _version(env: str, ref: str, source: str | None) -> tuple[ModelVersion, Bundle]:
    """The version in the environment's registry, which the gate has let through, and its verified bundle."""
    from contracts.registry import Registry, parse_ref

    registry = Registry(load_endpoints(env))
    if source is not None:
        version = _published(registry, Registry(load_endpoints(source)), ref)
    else:
        name = parse_ref(ref)[0]
        if not registry.versions(name):
            raise PlatformError(
                f"no model {name!r} in the registry of {env}",
                detail=f"models there: {', '.join(registry.names()) or 'none'}",
                fix=f"fairlead run {name} --profile {env}, or bring one: fairlead deploy {ref} --from PROFILE",
                code="unknown_model",
            )
        version = registry.resolve(ref)
    if not version.gate_passed and not version.override:
        raise PlatformError(
            f"the gate refused {version.name}:{version.version}",
            fix=f'record why it may be served: fairlead promote {ref} --profile {env} --override "REASON"',
            code="gate",
        )
    if not storage.is_remote(version.path):
        raise PlatformError(
            f"the bundle of {version.name}:{version.version} is on this machine only: {version.path}",
            fix=f"set `artifacts` of profile {env} to an s3:// address that its pods can read",
            code="local_bundle",
        )
    return version, registry.fetch(f"{version.name}:{version.version}")


def _published(registry: Registry, source: Registry, ref: str) -> ModelVersion:
    """Bring a version from another registry; what was overridden there keeps its reason."""
    item = source.resolve(ref)
    bundle = source.fetch(f"{item.name}:{item.version}")
    made = registry.publish(bundle)
    if item.gate_passed or item.override:
        return registry.promote(f"{made.name}:{made.version}", override=item.override)
    return made


def _upgrade(kube: Kube, release: str, file: Path, chart: Path, timeout: int) -> None:
    """``helm upgrade --install``, which goes back by itself when the new pods do not become ready."""
    if not (chart / "Chart.yaml").exists():
        raise PlatformError(
            f"no chart at {chart}", fix="name the folder of helm/model-service: --chart FOLDER", code="no_chart"
        )
    back = "--rollback-on-failure" if helm_major() >= 4 else "--atomic"
    command = kube.helm("upgrade", "--install", release, str(chart), "-f", str(file), "--history-max", "20")
    _watched(kube, [*command, "--wait", back, "--timeout", f"{timeout}s"], release)


def helm_major() -> int:
    """3 or 4."""
    said = output([program("helm"), "version", "--template", "{{.Version}}"])
    return int(said.strip().lstrip("v").partition(".")[0])


def _watched(kube: Kube, command: list[str], release: str) -> None:
    """Run helm and look at the release's pods meanwhile: a rollback takes the failed ones and their logs away."""
    seen: dict[str, Trouble] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, text=True)
        try:
            while child.poll() is None:
                time.sleep(_LOOK if seen else 1.0)
                for trouble in pod_troubles(kube, f"app.kubernetes.io/instance={release}"):
                    seen[trouble.what.partition(" ")[0]] = trouble
        except BaseException:
            child.terminate()
            child.wait()
            raise
        said.seek(0)
        text = said.read()
    if child.returncode == 0:
        return
    error = refused(command, text)
    last = next(reversed(seen.values()), None)
    if last is None or "would violate" in text:
        raise error
    raise PlatformError(
        f"release {release} was not changed: {last.cause}",
        detail=f"{last.what}: {last.state}\n  {last.said}".replace("\n", "\n  "),
        fix=last.fix,
        code="not_deployed",
        helm=error.detail,
    )


def rollback_release(env: str, model: str, timeout: int, as_json: bool) -> None:
    """Make the release serve what it served before, and write that into the environment's file."""
    from contracts.registry import parse_ref

    cluster, name = load_cluster(env), parse_ref(model)[0]
    kube, release, file = Kube(cluster.namespace, cluster.context), release_name(name), deployment_file(env, name)
    revision = previous_revision(kube, release)
    values = _values(kube, release, revision)
    section: dict[str, Any] = values["model"]
    _watched(kube, kube.helm("rollback", release, str(revision), "--wait", "--timeout", f"{timeout}s"), release)
    rest = {key: value for key, value in values.items() if key != "model"}
    write_text(file, pin(file, section, rest))
    evidence = {"release": release, "namespace": cluster.namespace, "revision": revision, "env": env, **section}
    note(load_endpoints(env), "rollback_release", f"{section['name']}:{section['version']}", evidence=evidence)

    def show(out: Console) -> None:
        out.print(f"[bold]{section['name']}:{section['version']}[/] is served by release {release} again")
        out.print(f"Values   {file}", soft_wrap=True)

    emit({"release": release, "namespace": cluster.namespace, "revision": revision, **section}, as_json, show)


def previous_revision(kube: Kube, release: str) -> int:
    """The newest revision that was deployed before the present one, with another model.

    Raises:
        PlatformError: ``code="no_history"``.
    """
    history = json.loads(output(kube.helm("history", release, "-o", "json", "--max", "50")))
    served = [item for item in history if item["status"] in ("deployed", "superseded")]
    now = _values(kube, release, served[-1]["revision"])["model"]["digest"] if served else ""
    for item in reversed(served[:-1]):
        if _values(kube, release, item["revision"])["model"]["digest"] != now:
            return int(item["revision"])
    raise PlatformError(
        f"nothing to roll release {release} back to",
        detail=f"{len(served)} revisions, all with the model that is served now",
        fix="deploy a version by name: fairlead deploy MODEL:VERSION --env ENV",
        code="no_history",
    )


def _values(kube: Kube, release: str, revision: int) -> dict[str, Any]:
    given = output(kube.helm("get", "values", release, "--revision", str(revision), "-o", "json"))
    values: dict[str, Any] = json.loads(given)
    return values
