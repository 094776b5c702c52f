"""Score a file or folder of rows with a published model, in chunks of bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.bundle import Bundle, Signature, is_bundle, read_bundle
from contracts.endpoints import Endpoints
from contracts.engines import load_engine
from contracts.registry import Registry
from pipelines.steps import batch_rows, events, scoring
from pipelines.steps.chunks import ROW
from pipelines.steps.files import fresh_folder, write_json
from pipelines.steps.remote import source_here

if TYPE_CHECKING:
    import pyarrow as pa

LABEL, FLAGS = "label_predicted", "flags"
_UNKNOWN_SHARE = 0.2  # of rows without features: more is said, for the model then answers by its defaults


def batch_score(model: str, source: str, endpoints: str, out: str, settings: str = "") -> dict[str, Any]:
    """Score every row of `source` (text or Parquet) and write ``part-*.parquet`` and ``summary.json`` to `out`.

    Each row gets ``label_predicted``, ``probability_<class>`` and ``flags`` (a list, as ``/predict`` answers). A
    column of the source that is called like one of them is kept as ``<name>_source``.

    Args:
        model: ``name``, ``name@alias``, ``name:version``, or the path of a bundle.
        source: a path or ``s3://...``; has the columns of a request: all inputs, or entity keys, request fields and
            the timestamp.
        settings: how the source is read where it is not as the model's training data were, JSON by dotted key.

    Returns:
        The summary: rows, rows per predicted label and per flag, renamed columns, warnings and the model's digest.
    """
    where = Endpoints.model_validate_json(endpoints)
    bundle = _open(model, where)
    engine = load_engine(bundle, threads=2)
    signature = bundle.document.signature
    made = _made(signature.classes)
    labels, flagged = np.zeros(len(signature.classes), dtype=np.int64), Counter[str]()
    renamed: dict[str, str] = {}
    report = events.progress("batch_score")
    rows = 0
    with fresh_folder(Path(out)) as folder, source_here(source) as here:
        for number, (plan, table) in enumerate(batch_rows.tables(here, bundle, batch_rows.parsed(settings))):
            columns, flags = batch_rows.inputs_of(table, plan, bundle, where)
            probability = scoring.predict(engine, columns, bundle.document.modality)
            chosen = _chosen(probability, bundle)
            labels += np.bincount(chosen, minlength=len(labels))
            flagged.update(flags.counts())
            table = table.drop_columns([ROW])
            names = free_names(table.column_names, made)
            renamed |= {old: new for old, new in zip(table.column_names, names, strict=True) if old != new}
            answers = _answers(probability, chosen, signature, flags)
            _write(table.rename_columns(names), made, answers, folder / f"part-{number:05d}.parquet")
            rows += table.num_rows
            report(rows, None, rows=rows)
        summary = {
            "model": model,
            "digest": bundle.digest,
            "rows": rows,
            "labels": {name: int(count) for name, count in zip(signature.classes, labels, strict=True)},
            "flags": dict(sorted(flagged.items())),
            "renamed": renamed,
            "warnings": _warnings(flagged, rows),
        }
        write_json(folder / "summary.json", summary)
    return summary


def _open(model: str, where: Endpoints) -> Bundle:
    if is_bundle(model):
        return read_bundle(Path(model).expanduser())
    return Registry(where).fetch(model)


def _chosen(probability: Any, bundle: Bundle) -> Any:
    """The position of each row's class."""
    decision = bundle.document.decision
    if decision is None:
        return probability.argmax(axis=1)
    at = bundle.document.signature.classes.index(decision.positive)
    return np.where(probability[:, at] >= decision.threshold, at, 1 - at)


def _made(classes: Sequence[str]) -> list[str]:
    """Names of the columns that scoring adds."""
    return [LABEL, *(f"probability_{name}" for name in classes), FLAGS]


def free_names(names: Sequence[str], made: Sequence[str]) -> list[str]:
    """Names for the source's columns that no column of `made` has, nor another one of the source; case is ignored,
    as most readers of Parquet do."""
    taken = {name.casefold() for name in [*names, *made]}
    ours, free = {name.casefold() for name in made}, []
    for name in names:
        new, number = name, 1
        while new.casefold() in ours or (new != name and new.casefold() in taken):
            new, number = f"{name}_source{f'_{number}' if number > 1 else ''}", number + 1
        taken.add(new.casefold())
        free.append(new)
    return free


def _answers(probability: Any, chosen: Any, signature: Signature, flags: batch_rows.Flags) -> list[pa.Array]:
    import pyarrow as pa

    labels = pa.array(np.array(signature.classes)[chosen])
    return [labels, *(pa.array(probability[:, at]) for at in range(probability.shape[1])), flags.column()]


def _write(table: pa.Table, made: Sequence[str], answers: Sequence[pa.Array], file: Path) -> None:
    from pyarrow import parquet

    for name, values in zip(made, answers, strict=True):
        table = table.append_column(name, values)
    parquet.write_table(table, file, compression="zstd")


def _warnings(flagged: Counter[str], rows: int) -> list[str]:
    """What a reader of the labels must know: rows whose features are not those of their entity."""
    reasons = {
        "not_found": "are of entities that the online store does not know",
        "outside_max_age": "have features older than their time to live",
        "unavailable": "have no features, because the online store did not answer",
    }
    found = []
    for word, count in sorted(flagged.items()):
        kind, _, view = word.partition(":")
        if kind in reasons and count >= _UNKNOWN_SHARE * rows:
            share = f"{count:,} of {rows:,} rows ({count / rows:.0%})"
            found.append(f"{share} {reasons[kind]} ({view}): they were scored with defaults")
    return found
