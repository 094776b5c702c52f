"""A dataset version on disk: written part by part in a staging folder, published whole, found again by its source."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.bundle import sha256_file
from pipelines.data.chunks import Rejected
from pipelines.io.files import write_json

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"
_JOURNAL = "journal.jsonl"


@dataclass(kw_only=True)
class Part:
    """One finished part: it ends with row `through` of the source; `rejected` are the bad rows among them."""

    name: str
    rows: int
    sha256: str
    bytes: int
    through: int
    schema: list[dict[str, str]]
    rejected: list[dict[str, Any]] = field(default_factory=list)


class Staging:
    """Folder of a version in the making, with a journal of finished parts, so that a killed run goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[Part] = []
        folder.mkdir(parents=True, exist_ok=True)
        journal = folder / _JOURNAL
        for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []:
            try:
                part = Part(**json.loads(line))
            except (json.JSONDecodeError, TypeError):  # the line that was being written when the run was killed
                break
            file = folder / part.name
            if not file.exists() or sha256_file(file) != part.sha256:
                break
            self.parts.append(part)
        self._rewrite_journal()

    def _rewrite_journal(self) -> None:
        lines = "".join(json.dumps(asdict(part)) + "\n" for part in self.parts)
        (self.folder / _JOURNAL).write_text(lines, encoding="utf-8")

    def add(self, tables: Sequence[pa.Table], through: int, rejected: Sequence[Rejected]) -> None:
        """Write the next part and note it in the journal."""
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.concat_tables(tables)
        name = f"part-{len(self.parts):05d}.parquet"
        unfinished = self.folder / f".{name}"
        try:
            parquet.write_table(table, unfinished, compression="zstd", compression_level=1)
            os.replace(unfinished, self.folder / name)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        target = self.folder / name
        part = Part(
            name=name,
            rows=table.num_rows,
            sha256=sha256_file(target),
            bytes=target.stat().st_size,
            through=through,
            schema=[{"name": f.name, "type": str(f.type)} for f in table.schema],
            rejected=[asdict(r) for r in rejected],
        )
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(asdict(part)) + "\n")
        self.parts.append(part)

    def publish(self, root: Path, task: str, source: dict[str, Any]) -> Path:
        """Move the finished parts to ``root/<version>``; the version is made of their content."""
        rejected = [row for part in self.parts for row in part.rejected]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rejected)
        (self.folder / REJECTED).write_text(text, encoding="utf-8")
        hashes = [part.sha256 for part in self.parts] + [hashlib.sha256(text.encode()).hexdigest()]
        version = hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]
        listed = ("name", "rows", "bytes", "sha256")
        manifest = {
            "schema_version": 1,
            "task": task,
            "version": version,
            **source,
            "rows": sum(part.rows for part in self.parts),
            "rejected": len(rejected),
            "schema": self.parts[0].schema,
            "parts": [{key: value for key, value in asdict(part).items() if key in listed} for part in self.parts],
        }
        write_json(self.folder / MANIFEST, manifest)
        target = root / version
        if intact(target):
            shutil.rmtree(self.folder)
            return target
        shutil.rmtree(target, ignore_errors=True)  # damaged: the same content replaces it
        (self.folder / _JOURNAL).unlink()
        os.replace(self.folder, target)
        return target


def intact(folder: Path) -> bool:
    """Whether a version is there with every byte of its parts."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return all(sha256_file(folder / part["name"]) == part["sha256"] for part in manifest["parts"])
    except (OSError, json.JSONDecodeError, KeyError):
        return False


def summary(manifest: str) -> dict[str, Any]:
    """What a reader wants to know of a version at once."""
    document = json.loads(Path(manifest).read_text(encoding="utf-8"))
    return {
        key: document[key]
        for key in ("rows", "rejected", "source", "personal", "moment", "documents")
        if key in document
    }


def address(manifest: str) -> str:
    """Where the manifest of the version itself is, of which `manifest` is a copy: a path, or ``s3://...``."""
    return storage.join(json.loads(Path(manifest).read_text(encoding="utf-8"))["path"], MANIFEST)
