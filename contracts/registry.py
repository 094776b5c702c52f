"""The model registry, on MLflow: versions are immutable bundles, aliases are for people.

MLflow is imported here and in `contracts.tracking`, on first use (4 s); a SQLite file of ours is read without it.
With bundles in S3 and an MLflow server, nothing needs a disk that machines share: bundles are uploaded whole, and
fetched into a local folder that is verified.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.bundle import DOCUMENT, Bundle, BundleDocument, parse_document, read_bundle
from contracts.champions import CHAMPION as CHAMPION
from contracts.champions import HISTORY, promotion_tag
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.file_lock import file_lock
from contracts.registry_file import all_pages, open_file, place_of
from contracts.tracking import connect

_NAME = re.compile(r"[\w-]+")
CHALLENGER = "challenger"


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
        return connect(self.endpoints)

    @functools.cached_property
    def _reading(self) -> Any:
        """What the models are read from: MLflow's client, or its SQLite file itself, which takes no import of 4 s."""
        return open_file(self.endpoints.tracking) or self._client

    def prepare(self) -> None:
        """Make MLflow's tables where there are none, which takes seconds; the first write would do it."""
        assert self._client

    def names(self) -> list[str]:
        """Names of all registered models that may be ours, sorted; a registry may be shared with others."""
        names = [model.name for model in all_pages(self._reading.search_registered_models)]
        return sorted(name for name in names if _NAME.fullmatch(name))

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
        if not storage.is_remote(root):
            return str(bundle.path.absolute())
        target = storage.join(root, bundle.document.name, bundle.digest[:12])
        if not storage.exists(storage.join(target, DOCUMENT)):
            storage.upload(bundle.path, target, last=DOCUMENT)
        return target

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model that `publish` made, newest first; empty for an unknown name."""
        found = all_pages(self._reading.search_model_versions, filter_string=f"name = '{_checked(name)}'")
        aliases = self._aliases(name) if found else {}
        made = [_version(item, aliases) for item in found if item.tags.get("digest")]
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
            raise _unknown(ref, have, f"fairlead run {name}", home=str(self.endpoints.scratch()), model=name)
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
            raise _other(item, bundle.digest)
        return bundle

    def document(self, ref: str) -> BundleDocument:
        """What the bundle that `ref` means now says of itself, without its files.

        Raises:
            PlatformError: ``code="bad_bundle"``: it is not the one that the registry knows.
        """
        item = self.resolve(ref)
        text = storage.read_bytes(storage.join(item.path, DOCUMENT))
        if (digest := hashlib.sha256(text).hexdigest()) != item.digest:
            raise _other(item, digest)
        return parse_document(text, item.path)

    def _local(self, item: ModelVersion) -> Path:
        """The folder of a version; one in S3 is copied once, and again when the copy is damaged."""
        if not storage.is_remote(item.path):
            return Path(item.path)
        folder = self.endpoints.scratch("bundles", item.name, item.digest[:16])
        with file_lock(folder.with_name(f".{folder.name}.lock")):
            try:
                if read_bundle(folder).digest == item.digest:
                    return folder
            except PlatformError:
                pass  # not there yet, or damaged
            return storage.download(item.path, folder, last=DOCUMENT)

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
                key = promotion_tag()
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
        return sorted((key, str(version)) for key, version in tags.items() if key.startswith(HISTORY))

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
        folder = self.endpoints.scratch() if storage.is_remote(root) else Path(root)
        with file_lock(folder / ".registry.lock"):
            yield


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
    if not _NAME.fullmatch(name):
        raise PlatformError(
            f"not a model name: {name!r}",
            detail="accepted: letters, digits, _ and -",
            fix="fairlead models",
            code="unknown_model",
        )
    return name


def _unknown(ref: str, detail: str, fix: str, **context: str) -> PlatformError:
    return PlatformError(f"no model {ref!r}", detail=detail, fix=fix, code="unknown_model", **context)


def _other(item: ModelVersion, digest: str) -> PlatformError:
    return PlatformError(
        f"bundle refused: {item.name}:{item.version}",
        detail=f"{item.path} has digest {digest[:16]}..., the registry says {item.digest[:16]}...",
        fix="publish the model again; never edit a bundle",
        code="bad_bundle",
    )


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
