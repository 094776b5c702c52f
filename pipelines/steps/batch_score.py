"""Score a file or folder of rows with a published model, in chunks of bounded memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import Bundle, is_bundle, read_bundle
from contracts.endpoints import Endpoints
from contracts.engines import load_engine
from contracts.out_of_distribution import FLAG, LIMIT, OOD, abstaining
from contracts.registry import Registry
from pipelines.data.chunks import ROW
from pipelines.data.origins import source_here
from pipelines.evaluation import get_evaluation, scoring
from pipelines.io import events
from pipelines.io.files import fresh_folder, write_json
from pipelines.steps import batch_clips, batch_documents, batch_groups, batch_rows

if TYPE_CHECKING:
    import pyarrow as pa

FLAGS = "flags"
_UNKNOWN_SHARE = 0.2  # of rows without features: more is said, for the model then answers by its defaults


def batch_score(model: str, source: str, endpoints: str, out: str, settings: str = "", to: str = "") -> dict[str, Any]:
    """Score every row of `source` (text or Parquet) and write ``part-*.parquet`` and ``summary.json`` to `out`.

    Each row gets the columns of its problem's `Batch`, such as ``label_predicted`` and ``probability_<class>``, and
    ``flags`` (a list, as ``/predict`` answers); of a model that can abstain also ``ood_score``.
    A column of the source that is called like one of them is kept as
    ``<name>_source``.

    Args:
        model: ``name``, ``name@alias``, ``name:version``, or the path of a bundle.
        source: a path, ``s3://...`` or ``mongodb://...``; has the columns of a request: all inputs, or entity keys,
            request fields and the timestamp. A clip, or a folder of clips, see `pipelines.steps.batch_clips`.
        settings: how the source is read where it is not as the model's training data were, JSON by dotted key; and
            ``groups.table`` and ``groups.key``, see `pipelines.steps.batch_groups`; of clips ``video.*``.
        to: ``mongodb://...``, a collection that gets a document for each row when all have their answers; its ``key``
            names the columns that a row is known by.

    Returns:
        The summary: rows, what the problem says of the answers, rows per flag, renamed columns, warnings and the
        model's digest.
    """
    import numpy as np
    import pyarrow as pa

    where, target = Endpoints.model_validate_json(endpoints), batch_documents.target_of(to, source)
    if target:
        batch_documents.reach(target)
    bundle = _open(model, where)
    asked, clip_work = batch_clips.parted(batch_rows.parsed(settings))
    reading, grouping = batch_groups.parted(asked)
    cuts = batch_groups.GroupCuts(bundle.document, grouping)
    engine = load_engine(bundle, threads=2)
    document = bundle.document
    files = [item.name for item in document.signature.inputs if item.dtype == "bytes"]  # are not written again
    batch = get_evaluation(document.signature.output.problem).batch(document.signature.output, document.decision)
    made = [*batch.columns, *([OOD] if abstaining(engine) else []), FLAGS]
    flagged = Counter[str]()
    renamed: dict[str, str] = {}
    report = events.progress("batch_score")
    keys: tuple[str, ...] = ()
    rows = 0
    with source_here(source, "batch_score") as here:
        if clips := batch_clips.clips_of(here):
            work = batch_clips.asked_of(clip_work, to, asked)
            return batch_clips.score_clips(model, bundle, engine, clips, Path(here), Path(out), work)
        batch_clips.check_none(clip_work, source)
        with fresh_folder(Path(out)) as folder:
            chunks = batch_rows.scorable(here, bundle, json.dumps(reading), where)
            for number, (table, columns, flags) in enumerate(chunks):
                ood: list[Any] = []
                said = scoring.predict(engine, columns, document, ood=ood)
                scores = [np.concatenate(ood)] if ood else []
                for beyond in scores:
                    flags.add(FLAG, beyond > LIMIT)
                answers = cuts.told(batch.add(cuts.apply(table, said)), batch.columns, said)
                flagged.update(flags.counts())
                table = table.drop_columns([ROW, *files])
                keys = batch_documents.keys_in(target, table.column_names) if target else ()
                names = free_names(table.column_names, made)
                renamed |= {old: new for old, new in zip(table.column_names, names, strict=True) if old != new}
                _write(
                    table.rename_columns(names),
                    made,
                    [*answers, *map(pa.array, scores), flags.column()],
                    folder / f"part-{number:05d}.parquet",
                )
                rows += table.num_rows
                report(rows, None, rows=rows)
            summary = {
                "model": model,
                "digest": bundle.digest,
                "rows": rows,
                "problem": document.signature.output.problem,
                **batch.document(),
                "flags": dict(sorted(flagged.items())),
                "renamed": renamed,
                **cuts.document(),
                "warnings": [*_warnings(flagged, rows), *cuts.warnings],
            }
            if target:
                named = {key: renamed.get(key, key) for key in keys}
                about = {"model": model, "digest": bundle.digest}
                summary["written"] = batch_documents.write_documents(target, folder, named, made, about, here)
            write_json(folder / "summary.json", summary)
    return summary


def _open(model: str, where: Endpoints) -> Bundle:
    if is_bundle(model):
        return read_bundle(Path(model).expanduser())
    return Registry(where).fetch(model)


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
