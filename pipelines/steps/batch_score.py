"""Score a file or folder of rows with a published model, in chunks of bounded memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from contracts.endpoints import Endpoints
from contracts.engines import load_engine
from pipelines.data.origins import source_here
from pipelines.io import events
from pipelines.io.files import fresh_folder, write_json
from pipelines.steps import batch_clips, batch_documents, batch_groups, batch_rows
from pipelines.steps.batch_shares import Asked, opened, score_rows

_UNKNOWN_SHARE = 0.2  # of rows without features: more is said, for the model then answers by its defaults


def batch_score(model: str, source: str, endpoints: str, out: str, settings: str = "", to: str = "") -> dict[str, Any]:
    """Score every row of `source` (text or Parquet) and write ``part-*.parquet`` and ``summary.json`` to `out`.

    Each row gets the columns of its problem's `Batch`, such as ``label_predicted`` and ``probability_<class>``, and
    ``flags`` (a list, as ``/predict`` answers); of a model that can abstain also ``ood_score``. A column of the source
    that is called like one of them is kept as ``<name>_source``.

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
    where, target = Endpoints.model_validate_json(endpoints), batch_documents.target_of(to, source)
    if target:
        batch_documents.reach(target)
    bundle = opened(model, where)
    asked, clip_work = batch_clips.parted(batch_rows.parsed(settings))
    reading, grouping = batch_groups.parted(asked)
    origin: dict[str, Any] = {}
    with source_here(source, "batch_score", about=origin) as here:
        if clips := batch_clips.clips_of(here):
            batch_groups.GroupCuts(bundle.document, grouping)
            engine, frames = load_engine(bundle, threads=2), batch_clips.asked_of(clip_work, to, asked)
            return batch_clips.score_clips(model, bundle, engine, clips, Path(here), Path(out), frames)
        batch_clips.check_none(clip_work, source)
        with fresh_folder(Path(out)) as folder:
            told = events.progress("batch_score")
            work = Asked(model, bundle, where, reading, grouping, target)
            scored = score_rows(work, here, folder, lambda rows: told(rows, None, rows=rows))
            keys = batch_documents.keys_in(target, scored.names) if target and scored.names else ()
            summary = {
                "model": model,
                "digest": bundle.digest,
                "rows": scored.rows,
                "problem": bundle.document.signature.output.problem,
                **scored.batch.document(),
                "flags": dict(sorted(scored.flags.items())),
                "renamed": scored.renamed,
                **scored.cuts.document(),
                **origin,
                "warnings": [*_warnings(scored.flags, scored.rows), *scored.cuts.warnings],
            }
            if target:
                named = {key: scored.renamed.get(key, key) for key in keys}
                about = {"model": model, "digest": bundle.digest}
                summary["written"] = batch_documents.write_documents(target, folder, named, scored.made, about, here)
            write_json(folder / "summary.json", summary)
    return summary


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
