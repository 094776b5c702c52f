"""``fairlead deploy`` and ``fairlead rollback --env``: one Helm release per model, by immutable version."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from contracts import storage
from contracts.errors import PlatformError
from deploy.cli.cluster.kube import Kube, output, program, refused
from deploy.cli.cluster.pod_diagnosis import Trouble, pod_troubles
from deploy.cli.profiles.audit_record import note
from deploy.cli.profiles.loading import deployment_file, load_cluster, load_endpoints, load_profile
from deploy.cli.releases.by_rollout import (
    abort,
    apply_rollouts,
    bring,
    front_of,
    has_rollouts,
    previous_version,
    start_request,
    values_text,
)
from deploy.cli.releases.keeper import need_keeper
from deploy.cli.releases.model_room import check_release
from deploy.cli.releases.release_values import first_values, model_section, pin, release_name
from deploy.cli.terminal.output import emit
from pipelines.io.files import write_text

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.bundle import Bundle
    from contracts.registry import ModelVersion, Registry
    from contracts.rollout_policy import Strategy

CHART = Path(__file__).resolve().parents[3] / "helm" / "model-service"
_LOOK = 3.0  # seconds between looks at the pods while helm waits


class Wanted(NamedTuple):
    """What `fairlead deploy` is asked for.

    Attributes:
        source: the profile whose registry has the version; its bundle is then published in the environment's too.
        strategy: None is Helm's rolling update, and direct for a release that has rollouts.
    """

    env: str
    ref: str
    source: str | None = None
    chart: Path | None = None
    timeout: int = 300
    write_only: bool = False
    strategy: Strategy | None = None
    reason: str = ""


def deploy_model(wanted: Wanted, as_json: bool) -> None:
    """Resolve the reference once, write its version into the environment's file, and make the release serve it."""
    env = wanted.env
    profile, cluster = load_profile(env), load_cluster(env)
    version, bundle = _version(env, wanted.ref, wanted.source)
    file, kube = deployment_file(env, version.name), Kube(cluster.namespace, cluster.context)
    release = release_name(version.name)
    section = model_section(version, bundle.document.modality)
    first = first_values(profile, bundle.document.feature_service is not None)
    document: dict[str, Any] = {"release": release, "namespace": cluster.namespace, **section, "values": str(file)}
    check_release(bundle, pin(file, section, first), wanted.chart or CHART)
    by_rollout = wanted.strategy in ("canary", "shadow") or has_rollouts(file)
    if by_rollout and not wanted.write_only:
        text = values_text(file, profile, kube, release, section, first)
        begins = front_of(kube, release) == ""
        with _kept(file, text):
            chart, timeout = wanted.chart or CHART, wanted.timeout
            apply_rollouts(kube, release, lambda: _upgrade(kube, release, file, chart, timeout))
        document["rollout"] = None if begins else _bring(wanted, kube, release, version, bundle)
        if begins or wanted.strategy in (None, "direct"):
            write_text(file, pin(file, section, {}))
    else:
        with _kept(file, pin(file, section, first)):
            if not wanted.write_only:
                _upgrade(kube, release, file, wanted.chart or CHART, wanted.timeout)
    action = "write_release" if wanted.write_only else "deploy"
    subject = f"{version.name}:{version.version}"
    note(load_endpoints(env), action, subject, reason=wanted.reason, evidence={**document, "env": env})
    emit(document, as_json, lambda out: _told(out, wanted, document))


@contextlib.contextmanager
def _kept(file: Path, text: str) -> Iterator[None]:
    """The file with a new text; where the block fails, Helm has gone back to what was there, and so does the file."""
    before = file.read_text(encoding="utf-8") if file.exists() else None
    write_text(file, text)
    try:
        yield
    except (PlatformError, KeyboardInterrupt):
        file.unlink() if before is None else write_text(file, before)
        raise


def _bring(wanted: Wanted, kube: Kube, release: str, version: ModelVersion, bundle: Bundle) -> dict[str, Any] | None:
    """Ask the release's keeper for the version; direct is waited for. None where it is served already."""
    keeper = need_keeper(wanted.env, load_cluster(wanted.env), version.name)
    served = keeper.read()
    if served.version == version.version and (served.rollout is None or served.rollout.ended):
        return None
    strategy = wanted.strategy or "direct"
    request = start_request(version, bundle, strategy, wanted.reason)
    served = bring(kube, release, keeper, request, wanted.timeout) if strategy == "direct" else keeper.ask(request)
    assert served.rollout is not None
    return {
        "id": request.id,
        "strategy": strategy,
        "phase": served.rollout.shown_phase,
        "instead": served.rollout.champion,
    }


def _told(out: Console, wanted: Wanted, document: dict[str, Any]) -> None:
    model, env, rollout = document["name"], wanted.env, document.get("rollout")
    name = f"{model}:{document['version']}"
    if rollout and rollout["strategy"] != "direct":
        out.print(f"[bold]{name}[/] is on its way ({rollout['strategy']}), instead of {model}:{rollout['instead']}")
        out.print(f"Follow   fairlead rollouts {model} --profile {env} --follow")
        out.print(f"End it   fairlead rollouts abort {model} --profile {env} --reason WHY")
        return
    done = "is written for" if wanted.write_only else "is served by"
    out.print(f"[bold]{name}[/] {done} release {document['release']} in {document['namespace']}")
    out.print(f"Values   {document['values']}", soft_wrap=True)
    if not wanted.write_only:
        out.print(f"Ask      fairlead predict {model} --env {env} --input ROWS.jsonl", soft_wrap=True)
        out.print(f"Back     fairlead rollback {model} --env {env}")


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
    if front_of(kube, release) == "router":
        _rolled_back_by_rollout(env, name, kube, timeout, as_json)
        return
    revision = previous_revision(kube, release)
    values = _values(kube, release, revision)
    section: dict[str, Any] = values["model"]
    _watched(kube, kube.helm("rollback", release, str(revision), "--wait", "--timeout", f"{timeout}s"), release)
    rest = {key: value for key, value in values.items() if key != "model"}
    write_text(file, pin(file, section, rest))
    evidence = {"release": release, "namespace": cluster.namespace, "revision": revision, "env": env, **section}
    note(load_endpoints(env), "rollback_release", f"{section['name']}:{section['version']}", evidence=evidence)
    document = {"release": release, "namespace": cluster.namespace, "revision": revision, **section}
    emit(document, as_json, lambda out: _told_back(out, document, file))


def _rolled_back_by_rollout(env: str, name: str, kube: Kube, timeout: int, as_json: bool) -> None:
    """End the rollout under way, whose old version is warm; else bring the version before the present one."""
    from contracts.registry import Registry

    keeper, release, file = need_keeper(env, load_cluster(env), name), release_name(name), deployment_file(env, name)
    served = keeper.read()
    registry = Registry(load_endpoints(env))
    if served.rollout is not None and not served.rollout.ended:
        served = abort(keeper, "rolled back by hand")
        version = registry.resolve(f"{name}:{served.version}")
        bundle = registry.fetch(f"{name}:{version.version}")
    else:
        version = registry.resolve(f"{name}:{previous_version(env, served)}")
        bundle = registry.fetch(f"{name}:{version.version}")
        bring(kube, release, keeper, start_request(version, bundle, "direct", "rolled back by hand"), timeout)
    section = model_section(version, bundle.document.modality)
    if file.exists():
        write_text(file, pin(file, section, {}))
    document = {"release": release, "namespace": kube.namespace, **section}
    note(load_endpoints(env), "rollback_release", f"{name}:{version.version}", evidence={**document, "env": env})
    emit(document, as_json, lambda out: _told_back(out, document, file))


def _told_back(out: Console, document: dict[str, Any], file: Path) -> None:
    out.print(f"[bold]{document['name']}:{document['version']}[/] is served by release {document['release']} again")
    out.print(f"Values   {file}", soft_wrap=True)


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
