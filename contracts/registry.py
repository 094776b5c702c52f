"""The model registry, on MLflow: versions are immutable bundles, aliases are for people.

The only module that imports MLflow, and it does so on first use (4 s); a SQLite file of ours is read without it.
With bundles in S3 and an MLflow server, nothing needs a disk that machines share: bundles are uploaded whole, and
fetched into a local folder that is verified.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts import objects
from contracts.bundle import DOCUMENT, Bundle, read_bundle
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.registry_file import all_pages, open_file, place_of

CHAMPION = "champion"
CHALLENGER = "challenger"
_HISTORY = "fairlead.champion."  # tags of the registered model: a version that became champion, by the moment


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One published bundle.

    Attributes:
        path: folder of the bundle, or its address in S3.  digest: sha256 of its ``bundle.json``.
        run_id: the MLflow run that made it.
        override: why it was promoted although the gate refused it; empty when it was not.
    """

    name: str
    version: str
    digest: str
    path: str
    gate_passed: bool
    created: str
    aliases: tuple[str, ...] = ()
    metrics: dict[str, float]
    recipe: str
    run_id: str = ""
    override: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Registry:
    """Publish, resolve, promote and roll back. Safe to use from several processes at once."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints.resolved()

    @functools.cached_property
    def _client(self) -> Any:
        return _client(self.endpoints)

    @functools.cached_property
    def _reading(self) -> Any:
        """What the models are read from: MLflow's client, or its SQLite file itself, which takes no import of 4 s."""
        return open_file(self.endpoints.tracking) or self._client

    def prepare(self) -> None:
        """Make MLflow's tables where there are none, which takes seconds; the first write would do it."""
        assert self._client

    def names(self) -> list[str]:
        """Names of all registered models, sorted."""
        return sorted(model.name for model in all_pages(self._reading.search_registered_models))

    def publish(self, bundle: Bundle, run_id: str = "") -> ModelVersion:
        """Register a bundle; publishing the same bundle again returns the version it already has."""
        document = bundle.document
        with self._locked():
            self._ensure_model(document.name, document.task)
            for known in self.versions(document.name):
                if known.digest == bundle.digest:
                    return known
            tags = {
                "digest": bundle.digest,
                "gate": "passed" if document.gate.passed else "refused",
                "recipe": document.recipe,
                "metrics": json.dumps(document.metrics),
            }
            source = self._stored(bundle)
            made = self._client.create_model_version(document.name, source=source, run_id=run_id or None, tags=tags)
        return self.resolve(f"{document.name}:{made.version}")

    def _stored(self, bundle: Bundle) -> str:
        """Where every machine finds the bundle; uploads it when bundles are kept in S3."""
        root = self.endpoints.uri("artifacts")
        if not objects.is_remote(root):
            return str(bundle.path.absolute())
        target = objects.join(root, bundle.document.name, bundle.digest[:12])
        if not objects.exists(objects.join(target, DOCUMENT)):
            objects.upload(bundle.path, target, last=DOCUMENT)
        return target

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first; empty for an unknown name."""
        found = all_pages(self._reading.search_model_versions, filter_string=f"name = '{_checked(name)}'")
        aliases = self._aliases(name) if found else {}
        made = [_version(item, aliases) for item in found]
        return sorted(made, key=lambda v: int(v.version), reverse=True)

    def resolve(self, ref: str) -> ModelVersion:
        """The version that `ref` means now: ``name`` (its champion), ``name@alias`` or ``name:version``.

        Raises:
            PlatformError: ``code="unknown_model"``, listing what there is.
        """
        name, version, alias = parse_ref(ref)
        found = self.versions(name)
        if not found:
            known = self.names()
            have = f"registered models in {place_of(self.endpoints.tracking)}: {', '.join(known) or 'none'}"
            raise _unknown(ref, have, f"fairlead run {name}", home=str(self.endpoints.scratch()))
        for item in found:
            if item.version == version or (not version and alias in item.aliases):
                return item
        have = "; ".join(f"{v.version}{' @' + ' @'.join(v.aliases) if v.aliases else ''}" for v in found[:10])
        raise _unknown(ref, f"versions of {name}: {have}", f"name one of them, for example {name}:{found[0].version}")

    def fetch(self, ref: str) -> Bundle:
        """The verified bundle that `ref` means now, on this machine."""
        item = self.resolve(ref)
        bundle = read_bundle(self._local(item))
        if bundle.digest != item.digest:
            raise PlatformError(
                f"bundle refused: {item.name}:{item.version}",
                detail=f"{item.path} has digest {bundle.digest[:16]}..., the registry says {item.digest[:16]}...",
                fix="publish the model again; never edit a bundle",
                code="bad_bundle",
            )
        return bundle

    def _local(self, item: ModelVersion) -> Path:
        """The folder of a version; one in S3 is copied once, and again when the copy is damaged."""
        if not objects.is_remote(item.path):
            return Path(item.path)
        folder = self.endpoints.scratch("bundles", item.name, item.digest[:16])
        with file_lock(folder.with_name(f".{folder.name}.lock")):
            try:
                if read_bundle(folder).digest == item.digest:
                    return folder
            except PlatformError:
                pass  # not there yet, or damaged
            return objects.download(item.path, folder, last=DOCUMENT)

    def set_alias(self, ref: str, alias: str) -> ModelVersion:
        """Point an alias other than ``champion`` at a version."""
        if alias == CHAMPION:
            raise PlatformError("champion is set by promotion only", fix=f"fairlead promote {ref}", code="gate")
        item = self.resolve(ref)
        self._client.set_registered_model_alias(item.name, alias, item.version)
        return self.resolve(f"{item.name}:{item.version}")

    def promote(self, ref: str, override: str = "") -> ModelVersion:
        """Make a version the champion. A version that the gate refused needs `override`, a reason that is recorded.

        Raises:
            PlatformError: ``code="gate"`` when the gate refused it and no reason is given.
        """
        self.resolve(ref)  # before a lock is made where there may be no model at all
        with self._locked():
            item = self.resolve(ref)
            bundle = self.fetch(f"{item.name}:{item.version}")
            if not item.gate_passed or not bundle.document.gate.passed:
                if not override.strip():
                    raise PlatformError(
                        f"the gate refused {item.name}:{item.version}",
                        detail="; ".join(bundle.document.gate.reasons),
                        fix=f'train a better one, or record why not: fairlead promote {ref} --override "REASON"',
                        code="gate",
                    )
                self._tag(item, "override", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {override.strip()}")
            history = self._history(item.name)
            if not history or history[-1][1] != item.version:
                key = f"{_HISTORY}{time.time_ns():020d}"
                self._client.set_registered_model_tag(item.name, key, item.version)
                self._set_champion(item.name)
        return self.resolve(f"{item.name}:{item.version}")

    def rollback(self, name: str) -> ModelVersion:
        """Make the previous champion the champion again, whatever aliases did in between."""
        if not self.versions(name):
            self.resolve(name)
        with self._locked():
            history = self._history(name)
            if len(history) < 2:
                raise PlatformError(
                    f"nothing to roll {name} back to",
                    detail=f"champions so far: {', '.join(version for _, version in history) or 'none'}",
                    fix=f"promote a version by name: fairlead promote {name}:VERSION",
                    code="no_history",
                )
            self.fetch(f"{name}:{history[-2][1]}")  # refuse to roll back to a damaged bundle
            self._client.delete_registered_model_tag(name, history[-1][0])
            self._set_champion(name)
        return self.resolve(f"{name}@{CHAMPION}")

    def _set_champion(self, name: str) -> None:
        """Point the alias at the newest entry. Each promotion is a tag of its own, so that two machines, which share
        no lock, lose neither's."""
        self._client.set_registered_model_alias(name, CHAMPION, self._history(name)[-1][1])

    def _history(self, name: str) -> list[tuple[str, str]]:
        """(tag, version) of every champion that was not rolled back, oldest first."""
        self.resolve(f"{name}:{self.versions(name)[0].version}" if self.versions(name) else name)
        tags = self._client.get_registered_model(name).tags
        return sorted((key, str(version)) for key, version in tags.items() if key.startswith(_HISTORY))

    def _aliases(self, name: str) -> dict[str, list[str]]:
        by_version: dict[str, list[str]] = {}
        for alias, version in self._reading.get_registered_model(name).aliases.items():
            by_version.setdefault(str(version), []).append(alias)
        return by_version

    def _ensure_model(self, name: str, task: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name, tags={"task": task})
        except MlflowException as err:
            if err.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _tag(self, item: ModelVersion, key: str, value: str) -> None:
        self._client.set_model_version_tag(item.name, item.version, key, value)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        root = self.endpoints.uri("artifacts")
        folder = self.endpoints.scratch() if objects.is_remote(root) else Path(root)
        with file_lock(folder / ".registry.lock"):
            yield


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` across processes of this machine; released when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def track_run(
    endpoints: Endpoints,
    experiment: str,
    run_name: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    curves: Sequence[Mapping[str, float]] = (),
    artifacts: Path | None = None,
    tags: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """Record a finished run in MLflow; `curves` is one mapping of metrics per round or epoch.

    Returns:
        The run's id and the path of its page below the MLflow server's address, ``#/experiments/<id>/runs/<id>``.
    """
    resolved = endpoints.resolved()
    client = _client(resolved)
    from mlflow.entities import Metric, Param, RunTag

    experiment_id = _experiment(client, resolved, experiment)
    run_id: str = client.create_run(experiment_id, run_name=run_name).info.run_id
    stamp = int(datetime.now(UTC).timestamp() * 1000)
    points = [Metric(key, float(value), stamp, 0) for key, value in metrics.items()]
    for step, row in enumerate(curves):
        points += [Metric(f"curve.{key}", float(value), stamp, step) for key, value in row.items()]
    for start in range(0, len(points), 900):
        client.log_batch(run_id, metrics=points[start : start + 900])
    client.log_batch(
        run_id,
        params=[Param(key, str(value)[:500]) for key, value in list(params.items())[:100]],
        tags=[RunTag(key, value) for key, value in (tags or {}).items()],
    )
    if artifacts is not None and artifacts.exists():
        client.log_artifacts(run_id, str(artifacts))
    client.set_terminated(run_id)
    return run_id, f"#/experiments/{experiment_id}/runs/{run_id}"


def parse_ref(ref: str) -> tuple[str, str, str]:
    """Split ``name``, ``name@alias`` or ``name:version`` into (name, version, alias)."""
    name, _, alias = ref.partition("@")
    name, _, version = name.partition(":")
    if (version and alias) or (version and not version.isdigit()):
        raise PlatformError(
            f"not a model reference: {ref!r}", fix="write name, name@alias or name:version", code="unknown_model"
        )
    return _checked(name), version, "" if version else alias or CHAMPION


def _checked(name: str) -> str:
    if not name or not all(c.isalnum() or c in "_-" for c in name):
        raise PlatformError(
            f"not a model name: {name!r}",
            detail="accepted: letters, digits, _ and -",
            fix="fairlead models",
            code="unknown_model",
        )
    return name


def _unknown(ref: str, detail: str, fix: str, **context: str) -> PlatformError:
    return PlatformError(f"no model {ref!r}", detail=detail, fix=fix, code="unknown_model", **context)


def _version(item: Any, aliases: Mapping[str, list[str]]) -> ModelVersion:
    return ModelVersion(
        name=item.name,
        version=str(item.version),
        digest=item.tags.get("digest", ""),
        path=item.source,
        gate_passed=item.tags.get("gate") == "passed",
        created=datetime.fromtimestamp(item.creation_timestamp / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        aliases=tuple(sorted(aliases.get(str(item.version), ()))),
        metrics=json.loads(item.tags.get("metrics", "{}")),
        recipe=item.tags.get("recipe", ""),
        run_id=item.run_id or "",
        override=item.tags.get("override", ""),
    )


def _experiment(client: Any, endpoints: Endpoints, name: str) -> str:
    from mlflow.exceptions import MlflowException

    if known := client.get_experiment_by_name(name):
        return str(known.experiment_id)
    # A local tracking store keeps files beside itself; a server decides by itself.
    local = endpoints.tracking.startswith("sqlite:")
    location = (Path(endpoints.home) / "mlflow" / name).as_uri() if local else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:  # another run created it in between
        return str(client.get_experiment_by_name(name).experiment_id)


def _client(endpoints: Endpoints) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        import mlflow
    except ImportError as err:
        raise PlatformError(
            "MLflow is not installed", fix="pip install 'fairlead[pipelines]'", code="missing_package"
        ) from err
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = endpoints.tracking
    if uri.startswith(("http://", "https://")):
        _answers(uri)
    with contextlib.ExitStack() as stack:
        if uri.startswith("sqlite:///"):
            # Creating the tables is not safe from two processes at once.
            file = Path(uri.removeprefix("sqlite:///"))
            stack.enter_context(file_lock(file.with_name(f".{file.name}.lock")))
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    return client


def _answers(uri: str) -> None:
    """Ask a tracking server once: MLflow itself would retry for minutes before it gives up."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10):
            return
    except urllib.error.HTTPError as err:
        if err.code < 500:  # it is there, and may want a login, which MLflow's client gives
            return
        reason: object = err
    except OSError as err:
        reason = err
    raise PlatformError(
        f"the tracking server does not answer: {uri}",
        detail=str(reason),
        fix="start it, or correct `tracking` of the profile (FAIRLEAD_TRACKING)",
        code="no_tracking",
    )
