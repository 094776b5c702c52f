"""Score a file or folder of rows with a published model, in chunks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.bundle import Bundle, Input, read_bundle
from contracts.endpoints import Endpoints
from contracts.engine import load_engine
from contracts.errors import PlatformError
from contracts.registry import Registry
from pipelines.steps import events, scoring
from pipelines.steps.casting import cast_column, cast_key
from pipelines.steps.files import fresh_folder, write_json
from pipelines.steps.remote import source_here
from pipelines.steps.sources import ROW, TextFormat, column_names, list_files, read_chunks
from pipelines.tasks.base import Column

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def batch_score(model: str, source: str, endpoints: str, out: str) -> dict[str, Any]:
    """Score every row of `source` (CSV, TSV or Parquet) and write ``part-*.parquet`` and ``summary.json`` to `out`.

    Args:
        model: ``name``, ``name@alias``, ``name:version``, or the path of a bundle.
        source: a path or ``s3://...``; has the columns of a request: all inputs, or entity keys, request fields and
            the timestamp.

    Returns:
        rows, rows per predicted label, and the model's digest.
    """
    where = Endpoints.model_validate_json(endpoints)
    bundle = _open(model, where)
    engine = load_engine(bundle, threads=2)
    signature, decision = bundle.document.signature, bundle.document.decision
    counts = np.zeros(len(signature.classes), dtype=np.int64)
    report = events.progress("batch_score")
    rows = 0
    with fresh_folder(Path(out)) as folder, source_here(source) as here:
        for number, table in enumerate(_tables(here)):
            frame = _typed(table, bundle, where)
            columns = scoring.columns_of(frame, signature.inputs)
            probability = scoring.predict(engine, columns, bundle.document.modality)
            chosen = probability.argmax(axis=1)
            if decision is not None:
                at = signature.classes.index(decision.positive)
                chosen = np.where(probability[:, at] >= decision.threshold, at, 1 - at)
            counts += np.bincount(chosen, minlength=len(counts))
            _write(table, probability, chosen, signature.classes, folder / f"part-{number:05d}.parquet")
            rows += table.num_rows
            report(rows, None, rows=rows)
        labels = {name: int(count) for name, count in zip(signature.classes, counts, strict=True)}
        summary = {"model": model, "digest": bundle.digest, "rows": rows, "labels": labels}
        write_json(folder / "summary.json", summary)
    return summary


def _open(model: str, where: Endpoints) -> Bundle:
    if (Path(model).expanduser() / "bundle.json").exists():
        return read_bundle(Path(model).expanduser())
    return Registry(where).fetch(model)


def _tables(source: str) -> Iterator[pa.Table]:
    for path in list_files(source):
        form = TextFormat()
        for chunk in read_chunks(path, column_names(path, form), form):
            if chunk.rejected:
                bad = chunk.rejected[0]
                raise PlatformError(
                    f"{path.name}, row {bad.row}: {bad.reason}",
                    detail=f"column {bad.column!r}: {bad.value[:60]}" if bad.column else bad.value[:60],
                    fix="correct the row; every row of a batch must get an answer",
                    code="bad_input",
                    row=bad.row,
                )
            if chunk.table.num_rows:
                yield chunk.table


def _typed(table: pa.Table, bundle: Bundle, where: Endpoints) -> pd.DataFrame:
    """The model's inputs: cast from the source, and completed by features when only keys are given."""
    signature = bundle.document.signature
    names = set(table.column_names)
    direct = all(item.name in names for item in signature.inputs)
    wanted = [Column(name=i.name, dtype=_kind(i), nullable=True) for i in signature.inputs]
    if not direct and signature.entities:
        wanted = [Column(name=name, dtype="string") for name in signature.entities]
        wanted += [Column(name=i.name, dtype=_kind(i), nullable=True) for i in signature.request]
        if signature.timestamp:
            wanted.append(Column(name=signature.timestamp, dtype="timestamp"))
    frame = _cast(table, wanted, () if direct else signature.entities)
    return frame if direct else _with_features(frame, bundle, where)


def _kind(item: Input) -> Any:
    return "string" if item.dtype == "string" else "int64" if item.dtype == "bool" else item.dtype


def _cast(table: pa.Table, wanted: list[Column], keys: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    made: dict[str, Any] = {}
    for column in wanted:
        if column.name not in table.column_names:
            raise PlatformError(
                f"the source has no column {column.name!r}",
                detail=f"columns there: {', '.join(n for n in table.column_names if n != ROW)}",
                fix=f"give the columns of a request: {', '.join(c.name for c in wanted)}",
                code="bad_schema",
                column=column.name,
            )
        cast = cast_key if column.name in keys else cast_column
        values, wrong = cast(table.column(column.name), column)
        if wrong.any():
            row = int(table.column(ROW)[int(wrong.argmax())].as_py())
            raise PlatformError(
                f"row {row}, column {column.name!r}: not {column.dtype}",
                detail=f"got {str(table.column(column.name)[int(wrong.argmax())].as_py())[:60]!r}",
                fix="correct the value, or leave it empty when it is not known",
                code="bad_input",
                row=row,
                column=column.name,
            )
        made[column.name] = values.to_pandas()
    return pd.DataFrame(made)


def _with_features(frame: pd.DataFrame, bundle: Bundle, where: Endpoints) -> pd.DataFrame:
    """Read features online and derive the on-demand ones, as the service does for each row's moment."""
    import pandas as pd

    from feature_repo.stores.reader import OnlineReader, apply_transforms

    plan: dict[str, Any] = bundle.read_json("features.json")
    signature = bundle.document.signature
    moments = np.full(len(frame), np.datetime64("now", "us"))
    if signature.timestamp:
        moments = frame[signature.timestamp].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    columns: dict[str, Any] = {str(name): frame[name].to_numpy() for name in frame.columns}
    if signature.timestamp:
        columns[signature.timestamp] = moments
    if signature.entities:
        keys = {name: frame[name].tolist() for name in signature.entities}
        columns |= _read_at(OnlineReader(plan, where.uri("online")), plan, keys, moments)
    columns |= apply_transforms(plan, columns)
    return pd.DataFrame({item.name: columns[item.name] for item in signature.inputs})


def _read_at(reader: Any, plan: Mapping[str, Any], keys: Mapping[str, list[Any]], moments: Any) -> dict[str, Any]:
    """Online features of many rows, each as served at its own moment.

    One read for all rows, as of a moment before all data, so that nothing is too old yet; the time to live is then
    applied to each row by itself.
    """
    early = datetime(1970, 1, 1, tzinfo=UTC)
    read = reader.read(keys, early)
    columns = dict(read.columns)
    at = (moments - np.datetime64("1970-01-01", "us")) / np.timedelta64(1, "s")
    for view in plan["views"]:
        age = at + np.asarray(read.age_seconds[view["name"]], dtype=np.float64)
        old = (view["ttl_seconds"] > 0) & (age > view["ttl_seconds"])
        for feature in view["features"]:
            values = columns[feature["name"]]
            missing = None if values.dtype.kind == "O" else np.nan
            columns[feature["name"]] = np.where(old, missing, values)
    return columns


def _write(table: pa.Table, probability: Any, chosen: Any, classes: list[str], file: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    scored = table.drop_columns([ROW]).append_column("label_predicted", pa.array(np.array(classes)[chosen]))
    for at, name in enumerate(classes):
        scored = scored.append_column(f"probability_{name}", pa.array(probability[:, at]))
    parquet.write_table(scored, file, compression="zstd")
