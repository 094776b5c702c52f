"""What a model learns from, on one self-contained page: splits, classes, columns, and the rows that were left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data import left_out, register
from pipelines.data.file_rows import row_count, some_rows
from pipelines.formatting import number
from pipelines.io.files import read_json
from pipelines.pages.render import render

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

FILE = "data.html"  # in a bundle, beside its card
ROWS = 20_000  # rows for training that columns are described by
_CLASSES = 30  # that are shown
_VALUES = 5  # of a column
_BINS = 24
_SHOWN = 40  # characters of a value
_SPLITS = ("train", "valid", "test")


def render_data(dataset: Path, about: Mapping[str, Any], title: str = "") -> str:
    """The page of a data set that build_dataset made.

    Args:
        about: what is known of its origin: any of task, source, version, files (of a manifest), rows, rejected.

    Texts are shown where they repeat, as categories do; of free text only the lengths are.
    """
    document = read_json(dataset / "dataset.json")
    frame, files, rows = _rows(dataset / "train.parquet")
    known = {item["name"]: item for item in document["inputs"]}
    order = [*known, *(name for name in frame.columns if name not in known)]
    gone = document.get("left_out")
    return render(
        "data.html",
        title=title or str(about.get("task", "")),
        about={"source": "", "version": "", **about},
        files=[_file(each) for each in about.get("files", ())],
        splits=[{"name": name, "rows": document["rows"][name]} for name in _SPLITS],
        total=sum(document["rows"].values()),
        classes=_classes(document["labels"]),
        columns=[
            (_files if name in files else _column)(name, frame[name], known.get(name))
            for name in order
            if _is_shown(name)
        ],
        rows=rows,
        looked_at=len(frame),
        groups=gone["groups"] if gone else [],
        left_out=left_out.in_words(gone) if gone else [],
        gone=gone,
        origin=register.in_words(document.get("origin") or {}),
        personal=[_personal(name, each) for name, each in document.get("personal", {}).items()],
    )


def _is_shown(name: str) -> bool:
    return name not in ("row_key", "id") and not name.startswith("slice_")


def _personal(name: str, each: Mapping[str, Any]) -> dict[str, str]:
    """A column with personal data: what happened to it, and in how many rows which kinds were found."""
    found = ", ".join(f"{kind.replace('_', ' ')} ({number(rows)})" for kind, rows in each["found"].items())
    return {"name": name, "operator": each["operator"] or "stays", "found": found or "none"}


def _file(each: Any) -> dict[str, Any]:
    return {"name": each["name"], "rows": each.get("rows")} if isinstance(each, Mapping) else {"name": str(each)}


def _rows(file: Path) -> tuple[pd.DataFrame, set[str], int]:
    """Up to `ROWS` rows, evenly from the whole part; its columns of files, which have sizes here; and all its rows."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = row_count(file)
    tables, files = [], set()
    for table in some_rows(file, np.arange(0, rows, max(1, -(-rows // ROWS)))):
        for at, name in enumerate(table.column_names):
            if pa.types.is_binary(table.column(at).type):
                table = table.set_column(at, name, pc.binary_length(table.column(at)))
                files.add(name)
        tables.append(table)
    return pa.concat_tables(tables).to_pandas(), files, rows


def _classes(labels: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Rows of each class by split, the commonest first."""
    names = {name for counts in labels.values() for name in counts}
    counts = {name: [labels[split].get(name, 0) for split in _SPLITS] for name in names}
    ordered = sorted(names, key=lambda name: (-sum(counts[name]), name))
    totals = [max(sum(labels[split].values()), 1) for split in _SPLITS]
    most = max([1, *(each[0] for each in counts.values())])
    rows = [
        {
            "name": _short(name),
            "counts": counts[name],
            "shares": [f"{count / total:.1%}" for count, total in zip(counts[name], totals, strict=True)],
            "bar": counts[name][0] / most,
        }
        for name in ordered[:_CLASSES]
    ]
    return {"rows": rows, "more": len(names) - len(rows)}


def _column(name: str, values: pd.Series[Any], item: Mapping[str, Any] | None) -> dict[str, Any]:
    """Name, type, share of missing values, what its values are, and bars of their distribution."""
    import pandas as pd
    from pandas.api import types

    given = values.dropna()
    shown: dict[str, Any] = {
        "name": name,
        "kind": item["dtype"] if item else str(values.dtype),
        "used": "label" if name == "label" else "input" if item else "",
        "meaning": (item or {}).get("description") or "",
        "missing": _share(len(values) - len(given), len(values)),
        "values": "none",
        "bars": [],
    }
    if not len(given):
        return shown
    if types.is_bool_dtype(values.dtype):
        return shown | {"values": f"true in {given.astype(bool).mean():.1%}"}
    if types.is_datetime64_any_dtype(values.dtype):
        numbers = given.astype("int64").to_numpy()
        return shown | {"values": f"{_moment(given.min())} to {_moment(given.max())}", "bars": _histogram(numbers)}
    if types.is_numeric_dtype(values.dtype):
        return shown | _numbers(pd.to_numeric(given).to_numpy(dtype="float64"))
    if not shown["used"]:  # keys and the like, which are no model's business and no reader's
        return shown | {"values": f"{given.nunique():,} different ones"}
    return shown | _texts(given.astype(str))


def _files(name: str, sizes: pd.Series[Any], item: Mapping[str, Any] | None) -> dict[str, Any]:
    """The same of a column of files."""
    said = f"files of {number(sizes.min() / 1000)} to {number(sizes.max() / 1000)} kB"
    used, meaning = ("input", item.get("description") or "") if item else ("", "")
    about = {"name": name, "kind": "bytes", "used": used, "meaning": meaning, "missing": ""}
    return {**about, "values": said, "bars": _histogram(sizes.to_numpy())}


def _numbers(given: NDArray[Any]) -> dict[str, Any]:
    import numpy as np

    finite = given[np.isfinite(given)]
    if not len(finite):
        return {"values": "infinite"}
    low, middle, high = (number(float(np.quantile(finite, share))) for share in (0.0, 0.5, 1.0))
    return {"values": f"{low} to {high}, median {middle}", "bars": _histogram(finite)}


def _texts(given: pd.Series[Any]) -> dict[str, Any]:
    counts = given.value_counts()
    if len(counts) > max(2, len(given) // 2):  # nearly each is one of its own: not for showing
        lengths = given.str.len()
        said = f"{len(counts):,} texts of {int(lengths.min())} to {int(lengths.max()):,} characters"
        return {"values": f"{said}, median {int(lengths.median()):,}", "bars": _histogram(lengths.to_numpy())}
    top = counts.head(_VALUES)
    words = [f"{_short(name)} ({count / len(given):.0%})" for name, count in top.items()]
    more = f", {len(counts) - len(top):,} more" if len(counts) > len(top) else ""
    most = counts.head(_BINS)
    return {"values": ", ".join(words) + more, "bars": [float(count) / float(most.iloc[0]) for count in most]}


def _histogram(values: NDArray[Any]) -> list[float]:
    """Heights from 0 to 1; of values from the middle 99 %, so that one outlier leaves something to see."""
    import numpy as np

    low, high = np.quantile(values, [0.005, 0.995])
    counts, _ = np.histogram(values, bins=_BINS, range=(low, high) if high > low else None)
    return [float(count) / float(max(counts.max(), 1)) for count in counts]


def _share(part: int, whole: int) -> str:
    """As a percentage; "" of none."""
    if not part:
        return ""
    return f"{part / whole:.1%}" if part / whole >= 0.001 else "< 0.1%"


def _moment(value: Any) -> str:
    return str(value)[:19]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
