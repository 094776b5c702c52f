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
    from services.feedback.records import Prediction

_RELATIVE = 1e-6  # that a number may differ
_TOO_MUCH = 0.05  # share of rows; as the alert


def show_skew(profile: str, model: str, rows: int, as_json: bool) -> int:
    """Compare, show and keep what was found; returns the exit code, 3 where an input differs in one of 20 rows.

    Raises:
        PlatformError: the model takes no features, or there is nothing to compare.
    """
    document = measure_skew(load_endpoints(profile), profile, model, rows)

    def show(out: Console) -> None:
        for version, one in document["versions"].items():
            out.print(f"[bold]{model}:{version}[/]  {one['rows']:,} rows, history until {document['known_until']}")
            made = table("input", "different", "share", "for example", right=("different", "share"))
            for name, found in one["inputs"].items():
                example = found["example"]
                text = "" if example is None else f"logged {example['logged']}, joined {example['joined']}"
                made.add_row(name, f"{found['different']:,}", f"{found['ratio']:.1%}", text)
            out.print(made)
            if one["unknown_entities"]:
                out.print(f"{one['unknown_entities']:,} rows more are of entities that the history does not have.")

    emit(document, as_json, show)
    worst = max((f["ratio"] for one in document["versions"].values() for f in one["inputs"].values()), default=0.0)
    return EXIT_REFUSED if worst > _TOO_MUCH else 0


def measure_skew(endpoints: Endpoints, profile: str, model: str, rows: int) -> dict[str, Any]:
    """Compare the newest logged rows with the history, and keep the result beside the log for the monitor.

    Raises:
        PlatformError: ``code="no_features"``: the model takes none; ``code="no_predictions"``: no row has entity keys.
    """
    from contracts.registry import Registry
    from services.feedback.layout import home
    from services.monitor.skew import FILE, FOLDER

    registry = Registry(endpoints)
    version = registry.resolve(model)
    document = registry.fetch(f"{version.name}:{version.version}").document
    if not document.signature.entities:
        raise PlatformError(
            f"{model} takes no features", fix="name a model that is asked by entity", code="no_features"
        )
    folder, salt = endpoints.uri("predictions"), salt_of(endpoints, profile, model)
    by_version: dict[str, list[Prediction]] = {}
    for one in newest(folder, model, rows):
        by_version.setdefault(one.version, []).append(one)
    history, versions = history_of(endpoints, document.task), dict[str, Any]()
    with folder_of(history) as place:
        for name, some in sorted(by_version.items()):
            bundle = registry.fetch(f"{version.name}:{name}")
            same = [one for one in some if bundle.digest.startswith(one.digest)]
            versions[name] = compare_logged(bundle, place, same, salt)
    found = {
        "model": model,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "known_until": history.plan["known_until"],
        "versions": versions,
    }
    address = storage.join(home(folder, model), FOLDER, FILE)
    storage.write_bytes(address, json.dumps(found, ensure_ascii=False, default=str).encode())
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
