"""Tables that memory need not hold: the same rows in the same parts as of a table that it holds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from pipelines.data import large_tables
from pipelines.data.file_rows import FileRows
from pipelines.data.sensitive import Sensitive
from pipelines.recipes.tabular.task import SplitConfig, TabularTask
from pipelines.steps import build_dataset as step
from pipelines.task import Column


class Parcels(TabularTask):
    name, title, id, label, slices = "parcels", "Late?", "parcel", "late", ("kind",)
    columns = (
        Column(name="parcel", dtype="string"),
        Column(name="sent", dtype="timestamp"),
        Column(name="weight", dtype="float64"),
        Column(name="stops", dtype="int64"),
        Column(name="kind", dtype="string"),
        Column(name="late", dtype="string"),
    )


class InTime(Parcels):
    timestamp = "sent"


class HowLate(InTime):
    problem = "regression"


# Of few characters, of one to four bytes each: tables of all that there are take Hypothesis seconds to make.
TEXT = st.text('ab0 ,"\n\u00e9\u0301\u20ac\u4e2d\U0001f600', min_size=1, max_size=3)
ROW = st.tuples(
    TEXT,
    st.none() | st.integers(0, 5),
    st.none() | st.floats(-1e9, 1e9),
    st.none() | st.integers(-3, 2**40),
    TEXT,
    st.sampled_from(["no", "yes"]),
)


def write(clean: Path, rows: list[Any], cut: int, numbers: bool) -> None:
    """Two parts with a report, as validate leaves them."""
    clean.mkdir(parents=True)
    frame = pd.DataFrame(rows, columns=[column.name for column in Parcels.columns])
    frame["sent"] = pd.to_datetime(frame["sent"], unit="D", utc=True)
    frame["stops"] = frame["stops"].astype("Int64")
    frame["weight"] = frame["weight"].astype("float64")
    if numbers:
        frame["late"] = (frame["late"] == "yes") + frame.index * 0.25
    for at, part in enumerate((frame[:cut], frame[cut:])):
        part.to_parquet(clean / f"part-{at:05d}.parquet", index=False)
    (clean / "report.json").write_text(json.dumps({"version": "v1", "personal": {"kind": {}}}))


def made(task: TabularTask, folder: Path, out: str, large: bool) -> dict[str, Any]:
    """What the step writes and returns; an error as its words."""
    config = SimpleNamespace(split=SplitConfig(), data=SimpleNamespace(columns={}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "get_task", lambda name: task)
        patch.setattr(step, "load_config", lambda *_: config)
        patch.setattr(step, "is_large", lambda files: large)
        if large:  # by whole frames nothing may be read
            patch.setattr(FileRows, "frame", lambda self: pytest.fail("held at once"))
        patch.setattr(large_tables, "_BATCH_ROWS", 3)
        try:
            said = step.build_dataset(task.name, "", str(folder / "clean"), "", str(folder / out))
        except PlatformError as err:
            return {"error": str(err)}
    frames = {name: pd.read_parquet(folder / out / f"{name}.parquet") for name in step.SPLITS}
    files = {name: (folder / out / name).read_bytes() for name in ("seen.bin", "dataset.json")}
    return {"said": said, "frames": frames, **files}


@pytest.mark.parametrize("task", [Parcels(), InTime(), HowLate()], ids=lambda task: type(task).__name__)
@given(rows=st.lists(ROW, min_size=12, max_size=30), cut=st.integers(1, 11))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_are_those_of_a_table_that_is_held(
    tmp_path_factory: pytest.TempPathFactory, task: TabularTask, rows: list[Any], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    write(folder / "clean", rows, cut, task.problem == "regression")
    held, large = (made(task, folder, name, name == "large") for name in ("held", "large"))
    if "error" in held:  # of few rows none may be left for a part
        assert large == held
        return
    for name, frame in held.pop("frames").items():
        pd.testing.assert_frame_equal(large["frames"][name], frame, check_exact=True)
    del large["frames"]
    assert large == held


def test_what_has_to_be_seen_together_is_held(tmp_path: Path) -> None:
    """A split of its own, sensitive columns, features, a missing label: as before."""
    rows = [(f"p{at}", at, 1.0, at, "a", ("no", "yes")[at % 2]) for at in range(20)]
    write(tmp_path / "clean", rows, 7, numbers=False)
    files = large_tables.parts_of(tmp_path / "clean")
    config = SimpleNamespace(split=SplitConfig())
    assert InTime().split_large(files, config) is not None

    class Own(InTime):
        def split(self, frame: Any, config: Any) -> Any:
            return super().split(frame[frame["stops"] > 3], config)

    class Known(InTime):
        sensitive = (Sensitive(name="kind"),)

    class Joined(InTime):
        feature_service = "parcels"

    assert [task.split_large(files, config) for task in (Own(), Known(), Joined())] == [None] * 3
    write(tmp_path / "gaps", [*rows, ("p", 1, 1.0, 1, "a", None)], 7, numbers=False)
    assert InTime().split_large(large_tables.parts_of(tmp_path / "gaps"), config) is None


def test_a_table_is_large_by_what_it_holds_beside_the_memory(tmp_path: Path) -> None:
    pd.DataFrame({"x": range(100_000)}).to_parquet(tmp_path / "part-00000.parquet", index=False)
    files = large_tables.parts_of(tmp_path)
    assert large_tables.is_large(files, 1_000_000)
    assert not large_tables.is_large(files, 100_000_000)
    with pytest.raises(PlatformError, match="missing or damaged"):
        large_tables.parts_of(tmp_path / "none")
