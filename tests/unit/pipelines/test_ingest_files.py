"""Files of a source that workers read make the version that one process makes."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyarrow import csv as pa_csv
from pyarrow import parquet

from contracts.errors import PlatformError
from feature_repo.stores.parts import function
from pipelines import data_engines
from pipelines.data_engines import Here
from pipelines.steps import ingest as step

HEADER = b"parcel,sent,distance,stops,kind,note,late\n"


class Workers(Here):
    """An engine whose work is done here, one piece after the other, as JSON."""

    workers = 3

    def __init__(self) -> None:
        self.done: list[str] = []

    def map(self, work: str, items: Sequence[Mapping[str, Any]]) -> list[Any]:
        self.done += [work] * len(items)
        return [json.loads(json.dumps(function(work)(json.loads(json.dumps(item))))) for item in items]


def _folder(root: Path, kind: str) -> Path:
    """Three files with repeated, missing and unreadable values, and addresses in some texts."""
    folder = root / f"source-{kind}"
    folder.mkdir()
    for number in range(3):
        rows = [f"P{number}-{at},2026-01-{at % 28 + 1:02d},{at / 3},{at % 4},box,{_note(at)},no" for at in range(70)]
        if kind == "parquet":
            text = io.BytesIO(HEADER + "\n".join(rows).encode())
            parquet.write_table(pa_csv.read_csv(text), folder / f"{number}.parquet", row_group_size=30)
            continue
        rows[5 + number] += ",one field too many"
        broken = ("\n".join(rows) + "\n").encode().replace(b"nothing 40", b"nothing \xff")
        (folder / f"{number}.csv").write_bytes(HEADER + broken)
    return folder


def _note(at: int) -> str:
    return f"write to a{at}@example.com" if at % 20 == 3 else "" if at % 7 == 0 else f"nothing {at}"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("pii", [{"note": "label"}, {"note": "keep"}, {}])
def test_files_that_workers_read_are_the_version_of_one_process(
    kind: str,
    pii: dict[str, str],
    toy: Any,
    toy_config: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step, "PART_ROWS", 40)
    monkeypatch.setattr(step, "PART_BYTES", 1500)
    folder, config = _folder(tmp_path, kind), toy_config(data={"pii": pii, "max_bad_share": 0.5})

    def made() -> tuple[Any, list[Any]]:
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        try:
            step.ingest("toy", config, str(folder), str(tmp_path / "data"), str(tmp_path / "manifest.json"))
        except PlatformError as err:
            return err.as_dict(), []
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        return manifest, (Path(manifest["path"]) / "rejected.jsonl").read_text().splitlines()

    alone, engine = made(), Workers()
    monkeypatch.setattr(data_engines, "_current", [engine])
    assert made() == alone
    assert engine.done == ["pipelines.steps.ingest_files:read_file"] * 3
    if pii:
        assert len(alone[0]["parts"]) > 5
        assert bool(alone[1]) is (kind == "csv")
        assert alone[0]["personal"]["note"]["found"]["email"] > 5
    else:
        assert alone[0]["code"] == "undeclared_pii"
