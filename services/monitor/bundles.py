"""The bundle of a logged prediction, found by its digest: what was normal when the model was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts import storage
from contracts.baseline import FILE
from contracts.bundle import DOCUMENT, BundleDocument, parse_document
from contracts.content import SEPARATOR
from contracts.errors import PlatformError
from services.monitor.watch import Normal
from services.problems import get_serving
from services.problems.base import Serving

_NAMED = 12  # digits of the digest that name a bundle


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a version: nothing but `normal` when its bundle is not found.

    Attributes:
        baseline: the bundle's ``baseline.json``, {} for none.
        fairness: what the bundle's evaluation said of groups; None for a model without.
        metrics: of the bundle's evaluation, by name.
    """

    normal: Normal = field(default_factory=Normal)
    serving: Serving | None = None
    document: BundleDocument | None = None
    baseline: Mapping[str, Any] = field(default_factory=dict)
    fairness: Mapping[str, Any] | None = None

    @property
    def metrics(self) -> dict[str, float]:
        return {} if self.document is None else dict(self.document.metrics)


def find(artifacts: str, model: str, digest: str) -> Known:
    """What the bundle with this digest says; only the files that are read are verified.

    Raises:
        PlatformError: the storage does not answer, or the bundle is damaged.
    """
    folder = _folder(artifacts, model, digest) if artifacts and digest else None
    if folder is None:
        return Known(normal=Normal(source="no bundle"))
    text = storage.read_bytes(storage.join(folder, DOCUMENT))
    if not hashlib.sha256(text).hexdigest().startswith(digest):
        raise _damaged(folder, DOCUMENT)
    document = parse_document(text, folder)
    signature, serving = document.signature, get_serving(document.signature.problem)
    inputs = {item.name: item for item in signature.inputs}
    baseline, evaluation = _read(folder, FILE, document), _read(folder, "evaluation.json", document)
    fairness = evaluation.get("fairness")
    if not baseline:
        return Known(normal=Normal(inputs=inputs), serving=serving, document=document, fairness=fairness)
    # A problem of a package may have a baseline of its evaluation's base, and a log that nothing is taken from.
    watches = type(serving).watched is not Serving.watched
    answer = serving.normal(signature.output, document.decision, baseline) if watches else {}
    rows = baseline.get("rows") or evaluation.get("rows")
    columns = {**_with_traits(baseline.get("inputs", {})), **{f"({name})": one for name, one in answer.items()}}
    normal = Normal(columns=columns, rows=rows and int(rows), inputs=inputs)
    return Known(normal=normal, serving=serving, document=document, baseline=baseline, fairness=fairness)


def _with_traits(described: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, and the traits of their content as columns of their own."""
    found = dict(described)
    for name, one in described.items():
        found |= {f"{name}{SEPARATOR}{trait}": column for trait, column in one.get("traits", {}).items()}
    return found


def _folder(artifacts: str, model: str, digest: str) -> str | None:
    """Where the bundle is; a model may be served by another name than its bundle's."""
    named = digest[:_NAMED]
    for name in dict.fromkeys([model, *storage.list_names(artifacts)]):
        for found in storage.list_names(storage.join(artifacts, name)):
            if found.startswith(named):
                return storage.join(artifacts, name, found)
    return None


def _read(folder: str, name: str, document: BundleDocument) -> dict[str, Any]:
    """A JSON document of the bundle, {} when it has none by that name."""
    if name not in document.files:
        return {}
    data = storage.read_bytes(storage.join(folder, name))
    if hashlib.sha256(data).hexdigest() != document.files[name]:
        raise _damaged(folder, name)
    found: dict[str, Any] = json.loads(data)
    return found


def _damaged(folder: str, name: str) -> PlatformError:
    return PlatformError(
        f"bundle refused: {folder}",
        detail=f"{name} is not what its digest says",
        fix="publish the model again; never edit a bundle",
        code="bad_bundle",
    )
