"""The rows of a batch with their answers, written chunk by chunk; the files of a source may be shared by workers.

A worker writes the parts of a file as one process would, and leaves the answers beside them, from which the summary is
counted. Answers that are no arrays (boxes, texts, lists) are given by one process.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.bundle import Bundle, is_bundle, read_bundle
from contracts.endpoints import Endpoints
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.out_of_distribution import FLAG, LIMIT, OOD, abstaining
from contracts.registry import Registry
from feature_repo.stores import parts
from pipelines.data.chunks import ROW
from pipelines.data.sources import list_files
from pipelines.data_engines import current
from pipelines.evaluation import get_evaluation, scoring
from pipelines.steps import batch_documents, batch_groups, batch_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from contracts.mongodb import Address
    from pipelines.evaluation.base import Batch

FLAGS = "flags"
_ARRAYS = {"classification", "multilabel", "regression", "embedding"}  # problems whose answers are numbers


@dataclass(frozen=True)
class Asked:
    """What a batch is scored with: the model as it was named and as it is, addresses, settings, and where scores go."""

    model: str
    bundle: Bundle
    where: Endpoints
    reading: Mapping[str, Any]
    grouping: Mapping[str, Any]
    target: Address | None = None
    threads: int = 2


@dataclass
class Scored:
    """What is known of rows that have been scored; `names` are the columns of the source, `made` what each row got."""

    batch: Batch
    cuts: batch_groups.GroupCuts
    rows: int = 0
    parts: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    renamed: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)


def opened(model: str, where: Endpoints) -> Bundle:
    """The bundle at a path, or of the registry."""
    if is_bundle(model):
        return read_bundle(Path(model).expanduser())
    return Registry(where).fetch(model)


def score_rows(asked: Asked, source: str, folder: Path, tell: Callable[[int], None]) -> Scored:
    """Write ``part-*.parquet`` to `folder`, in the order of the source; by the engine of the run where it has several
    files. `tell` is told how many rows are done.

    Raises:
        PlatformError: a row cannot be read, or the model changed while workers used it.
    """
    scored, engine = _begun(asked), current()
    signature = asked.bundle.document.signature
    whole_files = not any(item.dtype == "bytes" for item in signature.inputs)
    files = list_files(source) if engine.workers > 1 and whole_files else []
    if len(files) < 2 or signature.output.problem not in _ARRAYS:
        _score(asked, scored, source, folder, tell)
        return scored
    with engine.place() as place:
        about = {
            "model": str(Path(asked.model).expanduser().absolute()) if is_bundle(asked.model) else asked.model,
            "digest": asked.bundle.digest,
            "where": asked.where.model_dump_json(),
            "reading": json.dumps(asked.reading),
            "grouping": json.dumps(asked.grouping),
        }
        shared = engine.shared([str(file) for file in files], place)
        items = [{**about, "file": file, "out": storage.join(place, f"{at:05d}")} for at, file in enumerate(shared)]
        for item, done in zip(items, engine.map(f"{__name__}:score_file", items), strict=True):
            _take(scored, done, str(item["out"]), folder)
            tell(scored.rows)
    return scored


def score_file(item: Mapping[str, Any]) -> dict[str, Any]:
    """Work: the parts of one file, and the answers of each as ``answers-*.npy``, below ``item["out"]``."""
    import numpy as np

    asked = _asked(item["model"], item["digest"], item["where"], item["reading"], item["grouping"])
    scored = _begun(asked)
    with parts.scratch(storage.join(item["out"], "x")) as folder, parts.files_here([item["file"]], folder) as (here,):
        written = folder / "written"
        written.mkdir()

        def keep(answers: Any) -> None:
            np.save(written / f"answers-{scored.parts:05d}.npy", answers, allow_pickle=False)

        _score(asked, scored, here, written, lambda rows: None, keep)
        files = sorted(file.name for file in written.iterdir())
        for name in files:
            parts.publish(written / name, storage.join(item["out"], name))
    return {
        "rows": scored.rows,
        "parts": scored.parts,
        "flags": dict(scored.flags),
        "renamed": scored.renamed,
        "names": scored.names,
        "made": scored.made,
        "groups": scored.cuts.counts(),
    }


@functools.lru_cache(maxsize=1)  # a worker scores many files by one model
def _asked(model: str, digest: str, where: str, reading: str, grouping: str) -> Asked:
    addresses = Endpoints.model_validate_json(where)
    bundle = opened(model, addresses)
    if bundle.digest != digest:
        raise PlatformError(
            f"{model} is another version now than when the batch began",
            fix="score again, and name the version: NAME:VERSION",
            code="model_changed",
        )
    return Asked(model, bundle, addresses, json.loads(reading), json.loads(grouping), threads=1)


@functools.lru_cache(maxsize=1)
def _engine(folder: str, digest: str, threads: int) -> Any:
    return load_engine(read_bundle(Path(folder)), threads=threads)


def _begun(asked: Asked) -> Scored:
    document = asked.bundle.document
    output = document.signature.output
    batch = get_evaluation(output.problem).batch(output, document.decision)
    return Scored(batch, batch_groups.GroupCuts(document, asked.grouping))


def _score(
    asked: Asked,
    scored: Scored,
    source: str,
    folder: Path,
    tell: Callable[[int], None],
    keep: Callable[[Any], None] = lambda answers: None,
) -> None:
    """Score all of `source`, and add to `scored`; `keep` is given the answers of each part."""
    import numpy as np
    import pyarrow as pa

    document, cuts = asked.bundle.document, scored.cuts
    engine = _engine(str(asked.bundle.path), asked.bundle.digest, asked.threads)
    files = [item.name for item in document.signature.inputs if item.dtype == "bytes"]  # are not written again
    made = scored.made = [*scored.batch.columns, *([OOD] if abstaining(engine) else []), FLAGS]
    for table, columns, flags in batch_rows.scorable(source, asked.bundle, json.dumps(asked.reading), asked.where):
        ood: list[Any] = []
        said = scoring.predict(engine, columns, document, ood=ood)
        scores = [np.concatenate(ood)] if ood else []
        for beyond in scores:
            flags.add(FLAG, beyond > LIMIT)
        chosen = cuts.apply(table, said)
        keep(chosen)
        answers = cuts.told(scored.batch.add(chosen), scored.batch.columns, said)
        scored.flags.update(flags.counts())
        table = table.drop_columns([ROW, *files])
        if asked.target and not scored.names:  # refused before the rest is scored
            batch_documents.keys_in(asked.target, table.column_names)
        scored.names = table.column_names
        names = free_names(table.column_names, made)
        scored.renamed |= {old: new for old, new in zip(table.column_names, names, strict=True) if old != new}
        answers += [*map(pa.array, scores), flags.column()]
        _write(table.rename_columns(names), made, answers, folder / f"part-{scored.parts:05d}.parquet")
        scored.parts += 1
        scored.rows += table.num_rows
        tell(scored.rows)


def _take(scored: Scored, done: Mapping[str, Any], address: str, folder: Path) -> None:
    """Add what a worker scored, with its parts behind those that are there."""
    import numpy as np

    with tempfile.TemporaryDirectory(dir=folder, prefix=".taken-") as name:
        here = Path(name) if storage.is_remote(address) else Path(address)
        if storage.is_remote(address):
            storage.copy_here(address, here)
        for at in range(done["parts"]):
            shutil.move(here / f"part-{at:05d}.parquet", folder / f"part-{scored.parts + at:05d}.parquet")
            scored.batch.add(np.load(here / f"answers-{at:05d}.npy", allow_pickle=False))
    scored.rows += done["rows"]
    scored.parts += done["parts"]
    scored.flags.update(done["flags"])
    scored.renamed |= done["renamed"]
    scored.names = done["names"] or scored.names
    scored.made = done["made"]
    scored.cuts.count(done["groups"])


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
