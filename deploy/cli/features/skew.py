"""``fairlead monitor --skew``: logged inputs beside the same features joined again from the history.

What a model was asked with is in its log. The same entity at the same moment, joined point in time as training does,
should have the same values; where it has not, the online store was late, empty or filled by other code.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts import storage
from contracts.errors import PlatformError
from deploy.cli.features.feature_views import folder_of, history_of
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.profiles.log_salt import salt_of
from deploy.cli.terminal.output import EXIT_REFUSED, emit, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.bundle import Bundle
    from contracts.endpoints import Endpoints
    from contracts.registry import ModelVersion
    from services.feedback.records import Prediction

_RELATIVE = 1e-6  # that a number may differ
_TOO_MUCH = 0.05  # share of rows; as the alert
_NOTHING = frozenset({"no_features", "no_predictions", "unknown_model", "unknown_features"})  # to compare


def show_skew(profile: str, model: str | None, rows: int, as_json: bool) -> int:
    """Compare, show and keep what was found; returns the exit code, 3 where an input differs in one of 20 rows.

    Args:
        model: None for every model that has a log; those that cannot be compared are named with the reason.

    Raises:
        PlatformError: the model takes no features, or there is nothing to compare; or one of all models fails.
    """
    endpoints = load_endpoints(profile)
    if model is not None:
        documents, skipped = [measure_skew(endpoints, profile, model, rows)], dict[str, str]()
        emit(documents[0], as_json, lambda out: _show(out, documents, skipped))
    else:
        documents, skipped, failed = _measure_all(endpoints, profile, rows)
        emit({"models": documents, "skipped": skipped}, as_json, lambda out: _show(out, documents, skipped))
        if failed:
            raise failed
    every = (one for document in documents for one in document["versions"].values())
    worst = max((found["ratio"] for one in every for found in one["inputs"].values()), default=0.0)
    return EXIT_REFUSED if worst > _TOO_MUCH else 0


def _measure_all(
    endpoints: Endpoints, profile: str, rows: int
) -> tuple[list[dict[str, Any]], dict[str, str], PlatformError | None]:
    """What was found of every model, why others have nothing to compare, and the first failure of the rest."""
    from services.feedback.layout import models

    documents, skipped, failed = list[dict[str, Any]](), dict[str, str](), None
    for name in models(endpoints.uri("predictions")):
        try:
            documents.append(measure_skew(endpoints, profile, name, rows))
        except PlatformError as err:
            skipped[name] = err.headline
            if err.code not in _NOTHING:
                failed = failed or err
    return documents, skipped, failed


def _show(out: Console, documents: Sequence[Mapping[str, Any]], skipped: Mapping[str, str]) -> None:
    for document in documents:
        for version, one in document["versions"].items():
            out.print(
                f"[bold]{document['model']}:{version}[/]  {one['rows']:,} rows, history until {document['known_until']}"
            )
            made = table("input", "different", "share", "for example", right=("different", "share"))
            for name, found in one["inputs"].items():
                example = found["example"]
                text = "" if example is None else f"logged {example['logged']}, joined {example['joined']}"
                made.add_row(name, f"{found['different']:,}", f"{found['ratio']:.1%}", text)
            out.print(made)
            if one["unknown_entities"]:
                out.print(f"{one['unknown_entities']:,} rows more are of entities that the history does not have.")
    for name, reason in skipped.items():
        out.print(f"{name} is not compared: {reason}", soft_wrap=True, markup=False)


def measure_skew(endpoints: Endpoints, profile: str, model: str, rows: int) -> dict[str, Any]:
    """Compare the newest logged rows with the history, and keep the result beside the log for the monitor.

    Rows of a bundle that the registry does not have are left out.

    Raises:
        PlatformError: ``code="no_features"``: the model takes none; ``code="no_predictions"``: no row has entity keys;
            ``code="unknown_model"``: the registry has none of the bundles that answered.
    """
    from contracts.registry import Registry
    from services.feedback.layout import home
    from services.monitor.skew import FILE, FOLDER

    registry = Registry(endpoints)
    name = registry.resolve(model).name
    document = registry.document(model)
    if not document.signature.entities:
        raise PlatformError(
            f"{model} takes no features", fix="name a model that is asked by entity", code="no_features"
        )
    folder, salt = endpoints.uri("predictions"), salt_of(endpoints, profile, model)
    found = _by_bundle(registry.versions(name), newest(folder, model, rows))
    if not found:
        raise PlatformError(
            f"no logged prediction of {model} is of a bundle that the registry has",
            fix=f"serve a version of the registry: fairlead deploy {name}",
            code="unknown_model",
        )
    history, versions = history_of(endpoints, document.task), dict[str, Any]()
    with folder_of(history) as place:
        for served, (version, some) in sorted(found.items()):
            bundle = registry.fetch(f"{name}:{version}")
            versions[served] = compare_logged(bundle, place, some, salt)
    result = {
        "model": model,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "known_until": history.plan["known_until"],
        "versions": versions,
    }
    address = storage.join(home(folder, model), FOLDER, FILE)
    storage.write_bytes(address, json.dumps(result, ensure_ascii=False, default=str).encode())
    return result


def _by_bundle(known: Sequence[ModelVersion], records: Iterable[Prediction]) -> dict[str, tuple[str, list[Prediction]]]:
    """By the version that a record names: the version of its bundle in the registry, and the records.

    What is served by a name of somebody's own is found by its digest. Of a name given twice the later bundle counts.
    """
    found: dict[str, tuple[str, list[Prediction]]] = {}
    for one in records:
        of = [v.version for v in known if (v.digest.startswith(one.digest) if one.digest else v.version == one.version)]
        if of and found.setdefault(one.version, (of[0], []))[0] in of:
            found[one.version][1].append(one)
    return found


def skew_quietly(profile: str, model: str, rows: int) -> None:
    """Measure it where the profile and the model allow; else nothing happens."""
    with contextlib.suppress(PlatformError):
        measure_skew(load_endpoints(profile), profile, model, rows)


def newest(folder: str, model: str, most: int) -> list[Prediction]:
    """The newest logged rows that have entity keys.

    Raises:
        PlatformError: ``code="no_predictions"``: there is none.
    """
    from services.feedback.layout import files
    from services.feedback.line_file import Unreadable
    from services.feedback.reading import whole
    from services.feedback.records import Prediction

    found: list[Prediction] = []
    for file in reversed(files(folder, model)):
        records = whole(folder, model, "predictions", file, Prediction, Unreadable())
        found += deque((one for one in records if one.entities), maxlen=most - len(found))
        if len(found) >= most:
            break
    if not found:
        raise PlatformError(
            f"no logged prediction of {model} has entity keys",
            detail="only what was looked up in the online store can be joined again",
            fix="ask it by entity; a log with predictions.entities=drop keeps no keys",
            code="no_predictions",
        )
    return found


def compare_logged(bundle: Bundle, folder: Path, records: Sequence[Prediction], salt: str) -> dict[str, Any]:
    """For each online input how many of the records differ from the history in `folder`.

    Raises:
        PlatformError: ``code="no_features"``: the model takes none.
    """
    import pandas as pd

    from feature_repo.stores.join import point_in_time_join

    plan, signature = bundle.read_json("features.json"), bundle.document.signature
    if not plan:
        raise PlatformError(f"{bundle.document.name} takes no features", fix="name another model", code="no_features")
    keys, known = _keys_of(plan, folder, records, salt)
    moments = [one.moment or one.time for one in known]
    frame = pd.DataFrame({**keys, plan["timestamp"]: pd.Series(moments, dtype="datetime64[us, UTC]")})
    joined = point_in_time_join(plan, folder, frame)
    inputs: dict[str, Any] = {}
    for item in signature.inputs:
        if item.source == "online" and item.name in joined.columns:
            logged = [one.inputs.get(item.name) for one in known]
            inputs[item.name] = _different(logged, _filled(joined[item.name], item.default), known, salt)
    return {"rows": len(known), "unknown_entities": len(records) - len(known), "inputs": inputs}


def _keys_of(
    plan: Mapping[str, Any], folder: Path, records: Sequence[Prediction], salt: str
) -> tuple[dict[str, list[str]], list[Prediction]]:
    """The keys of the records that the history knows, by name, and these records: the log has hashes of keys."""
    from feature_repo.stores.keys import canonical_text
    from services.feedback.hashing import hashed

    found: dict[str, dict[str, str]] = {}
    for view in plan["views"]:
        for name, values in _distinct(view, folder):
            wanted = {str(one.entities.get(name)) for one in records}
            texts = found.setdefault(name, {})
            for value in values:
                text = canonical_text(value)
                for accepted in {text, hashed(salt.encode(), text)} & wanted:
                    texts[accepted] = text
    names = list(found)
    known = [one for one in records if all(str(one.entities.get(name)) in found[name] for name in names)]
    return {name: [found[name][str(one.entities[name])] for one in known] for name in names}, known


def _distinct(view: Mapping[str, Any], folder: Path) -> Iterable[tuple[str, list[Any]]]:
    from feature_repo.stores.parquet_sources import column, connect, scan, source_files

    with connect("500MB") as connection:
        rows = scan(connection, source_files(view["source"], folder, view["name"]))
        for key in view["join_keys"]:
            name = column(view, key["name"])
            query = f"SELECT DISTINCT {name} FROM {rows} WHERE {name} IS NOT NULL"
            yield key["name"], [value for (value,) in connection.execute(query).fetchall()]


def _filled(values: Any, default: Any) -> list[Any]:
    """The joined values as a service gives them to the model: moments as seconds, missing ones as the default."""
    import pandas as pd

    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = (values.astype("int64") / 1e6).where(values.notna())
    return [default if one is None or pd.isna(one) else one for one in values.tolist()]


def _different(logged: list[Any], joined: list[Any], records: Sequence[Prediction], salt: str) -> dict[str, Any]:
    wrong = [at for at, (one, other) in enumerate(zip(logged, joined, strict=True)) if not _same(one, other, salt)]
    example = None
    if wrong:
        at = wrong[0]
        example = {"id": records[at].id, "logged": logged[at], "joined": joined[at]}
    ratio = len(wrong) / max(1, len(logged))
    return {"rows": len(logged), "different": len(wrong), "ratio": ratio, "example": example}


def _same(logged: Any, joined: Any, salt: str) -> bool:
    """Whether a logged value is the joined one; of a text the log may have its length or its hash only."""
    from services.feedback.hashing import hashed

    if isinstance(logged, Mapping):
        said = {"chars": len(str(joined or "")), "hash": hashed(salt.encode(), joined)}
        return all(said.get(name) == value for name, value in logged.items())
    if logged is None or joined is None:
        return logged is None and (joined is None or joined == "")
    if isinstance(logged, str) or isinstance(joined, str):
        return str(logged) == str(joined)
    return bool(np.isclose(float(logged), float(joined), rtol=_RELATIVE, atol=1e-9))
