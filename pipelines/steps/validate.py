"""Check every row: bad rows go to a quarantine file with number, column and reason; a bad schema stops the run."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import storage
from contracts.errors import PlatformError
from pipelines.data import left_out, register
from pipelines.data.chunks import ROW
from pipelines.data.values_guess import guess_setting
from pipelines.data.versions import MANIFEST, REJECTED, intact
from pipelines.evaluation import get_evaluation
from pipelines.evaluation.leakage import check_leakage
from pipelines.io import events
from pipelines.io.files import missing, read_json, write_json
from pipelines.io.remote import folder_here
from pipelines.plugins import task_folder
from pipelines.settings import setting
from pipelines.steps.validate_parts import Checked, Checks, checked_parts
from pipelines.task import DataConfig, Task, problem_of
from pipelines.tasks import get_task, load_config

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

QUARANTINE = "quarantine.csv"
_POSITION = re.compile(r" at position \d+")  # differs from row to row
_SHOWN = 40  # characters of a bad value that are kept: the quarantine is for finding it, not a copy of it
_SAMPLE = 20_000  # rows per class, or of all where there are none, that the leakage check looks at
_DRAW = "_draw"
_FEW = 0.5  # share of bad rows; where more are bad, it is how they are read that is wrong


def validate(task: str, config: str, dataset: str, out: str, kept: str = "") -> dict[str, Any]:
    """Check the version whose manifest is `dataset`: ``part-*.parquet``, ``quarantine.csv``, ``report.json`` in `out`.

    `dataset` is a path or ``s3://...``; `kept` is where people find what is in `out` when the step has ended, if it is
    elsewhere.
    Types become those of ``task.columns`` (``timestamp`` is microseconds in UTC); other columns stay as they are.

    Returns:
        rows, good, bad, the number of bad values per column and reason, `left_out` (pipelines.data.left_out), and
        `personal` (pipelines.data.personal) and `origin` (pipelines.data.register).

    Raises:
        PlatformError: a column is missing or of a wrong type, more than ``data.max_bad_share`` of the rows are bad, or
            a column gives the label away.
    """
    found = get_task(task)
    settings = load_config(found, config)
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    quarantine = storage.join(kept or out, QUARANTINE)
    run = _Validation(found, settings.data)
    try:
        with _version(dataset) as (folder, manifest), _quarantine(target / QUARANTINE, manifest) as write:
            run.version = str(manifest.get("version", ""))
            run.reject(folder / REJECTED, write)
            personal = manifest.get("personal", {})
            origin = register.require(task_folder(task), str(manifest.get("source", "")))
            names = [part["name"] for part in manifest["parts"]]
            asked = {"task": found.name, "config": config}
            for number, (raw, checked) in enumerate(checked_parts(run.checks, asked, dataset, folder, names)):
                good = run.settle(raw, checked, write)
                _write_part(good, target / f"part-{number:05d}.parquet")
                events.emit("progress", step="validate", done=number + 1, total=len(manifest["parts"]), bad=run.bad)
    except OSError as err:
        raise events.from_os_error(err, "validate") from err
    report = {**run.report(quarantine), "personal": personal, "origin": origin}
    write_json(target / "report.json", report)
    _refuse_if_too_bad(report, settings.data.max_bad_share, quarantine, run.cure())
    _check_labels(run.sample(), found)
    needed = [column.name for column in found.columns]
    power = check_leakage(run.sample(), found.label, settings.data, run.evaluation, needed)
    write_json(target / "report.json", {**report, "single_column_auc": {k: round(v, 4) for k, v in power.items()}})
    return report


@contextmanager
def _version(dataset: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and manifest of a dataset version; one in S3 is copied here and checked."""
    if not storage.is_remote(dataset):
        manifest = read_json(dataset)
        yield Path(manifest.get("path") or Path(dataset).parent), manifest
        return
    with folder_here(dataset.rpartition("/")[0], last=MANIFEST) as folder:
        if not intact(folder):
            raise missing(dataset)
        yield folder, read_json(folder / MANIFEST)


class _Validation:
    """State that outlives a part: ids seen so far, counts, and the sample for the leakage check."""

    def __init__(self, task: Task, data: DataConfig) -> None:
        self.task = task
        self.evaluation = get_evaluation(problem_of(task))
        self.checks = Checks(task, data)
        self.version = ""  # of the data set
        self.good = self.bad = 0
        self.reasons: Counter[tuple[str, str]] = Counter()
        self._first: Counter[tuple[str, str]] = Counter()  # of each bad row, its first reason
        self._labels: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._wrong: dict[str, list[str]] = {}
        self._seen: dict[str, NDArray[np.uint64]] = {}
        self._sample: pd.DataFrame | None = None

    def reject(self, file: Path, write: Any) -> None:
        """Take over the rows that could not even be read."""
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
            row = json.loads(line)
            write(row["row"], row["column"], row["value"], row["reason"], row.get("file", ""))
            self.bad += 1
            reason = _POSITION.sub("", row["reason"])
            self.reasons[row["column"], reason] += 1
            if (label := row.get("label")) is not None and self._classes([label]) is not None:
                self._labels[label] += 1
                self._lost[label] += 1
            self._first[row["column"], reason] += 1

    def settle(self, raw: pa.Table, checked: Checked, write: Any) -> pa.Table:
        """The good rows of a part, typed; the bad ones are written to the quarantine."""
        import numpy as np
        import pyarrow as pa

        table, problems = checked.table, checked.problems
        for name, values in checked.wrong.items():
            self._wrong.setdefault(name, []).extend(values)
        rows = raw.column(ROW).to_numpy()
        bad = np.zeros(table.num_rows, dtype=bool)
        bad[[at for at, _, _ in problems]] = True
        problems += self._duplicates(table, bad)
        bad[[at for at, _, _ in problems]] = True
        self._count_classes(raw, bad, {at for at, name, _ in problems if name == self.task.label})
        self._first.update({at: (name, reason) for at, name, reason in sorted(problems, reverse=True)}.values())
        for at, name, reason in sorted(problems):
            write(int(rows[at]), name, raw.column(name)[at].as_py() if name in raw.column_names else None, reason)
            self.reasons[name, reason] += 1
        good = table.filter(pa.array(~bad))
        self.bad += int(bad.sum())
        self.good += good.num_rows
        self._add_to_sample(good, rows[~bad])
        return good

    def _count_classes(self, raw: pa.Table, bad: NDArray[np.bool_], wrong: set[int]) -> None:
        """Count rows by class, good and bad, but for those whose label itself is bad."""
        if self.task.label not in raw.column_names or self._classes([]) is None:
            return
        usable = bad.copy()
        usable[:] = True
        usable[list(wrong)] = False
        labels = raw.column(self.task.label)
        for rows, counts in ((usable, self._labels), (usable & bad, self._lost)):
            for each in labels.filter(rows).value_counts().to_pylist():
                counts[str(each["values"])] += each["counts"]

    def _classes(self, labels: Any) -> pd.Series[Any] | None:
        import pandas as pd

        return self.evaluation.strata(pd.Series(labels, dtype=object))

    def _duplicates(self, table: pa.Table, bad: NDArray[np.bool_]) -> list[tuple[int, str, str]]:
        """Repeated values of unique columns, also of earlier parts; the first good row keeps the value."""
        import numpy as np
        import pandas as pd

        found = []
        unique = dict.fromkeys([self.task.id, *(c.name for c in self.task.columns if c.unique)])
        for name in unique:
            column = table.column(name)
            usable = ~bad & ~column.is_null().to_numpy()
            positions = np.flatnonzero(usable)
            keys = pd.util.hash_array(column.to_pandas().to_numpy()[positions])
            seen = self._seen.get(name, np.zeros(0, dtype=np.uint64))
            again = pd.Series(keys).duplicated().to_numpy() | _member(keys, seen)
            found += [(int(at), name, "duplicate of an earlier row") for at in positions[again]]
            self._seen[name] = np.sort(np.concatenate([seen, keys[~again]]))
        return found

    def _add_to_sample(self, good: pa.Table, rows: NDArray[np.int64]) -> None:
        """Keep up to `_SAMPLE` rows of each class, drawn evenly from all parts; rare classes come in full."""
        import numpy as np
        import pandas as pd
        import pyarrow as pa

        task = self.task
        files = {column.name for column in task.columns if column.dtype == "bytes"}
        fixed = {task.id, task.timestamp, *task.entities, *files} - {task.label}
        draw = pd.util.hash_array(rows)  # as good as random, and the same for the same row
        label = good.column(task.label).to_pandas()
        before = self._sample if self._sample is not None else pd.DataFrame({task.label: label[:0], _DRAW: draw[:0]})
        labels = self._classes(pd.concat([before[task.label], label], ignore_index=True))
        draws = pd.Series(np.concatenate([before[_DRAW].to_numpy(dtype=np.uint64), draw]))
        ranks = draws.rank(method="first") if labels is None else draws.groupby(labels).rank(method="first")
        keep = (ranks <= _SAMPLE).to_numpy()
        new = keep[len(before) :]
        chosen = good.select([n for n in good.column_names if n not in fixed]).filter(pa.array(new))
        added = _shortened(chosen).to_pandas().assign(**{_DRAW: draw[new]})
        self._sample = added if self._sample is None else pd.concat([before[keep[: len(before)]], added])

    def sample(self) -> pd.DataFrame:
        """Good rows without id, time and entities."""
        assert self._sample is not None
        return self._sample.drop(columns=_DRAW)

    def cure(self) -> str:
        """The settings by which most of the values that could not be read can be; "" when they look like nothing."""
        columns = {column.name: column for column in self.task.columns}
        found = [guess_setting(columns[name], values, self.checks.form) for name, values in self._wrong.items()]
        return " ".join(dict.fromkeys(filter(None, found)))

    def report(self, quarantine: str) -> dict[str, Any]:
        """Counts of the whole version."""
        listed = [{"column": c, "reason": r, "values": n} for (c, r), n in self.reasons.most_common(100)]
        rows = self.good + self.bad
        groups = [
            {"step": "validate", "reason": f"{c or 'row'}: {r}", "rows": n, "where": quarantine}
            for (c, r), n in self._first.most_common()
        ]
        found = left_out.document(rows, groups, left_out.losers("validate", self._labels, self._lost))
        counts = {"rows": rows, "good": self.good, "bad": self.bad}
        return {"version": self.version, **counts, "reasons": listed, "left_out": found}


def _shortened(table: pa.Table) -> pa.Table:
    """Texts cut to 100 characters, which tell as much about the label and keep the sample small."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for at, kind in enumerate(table.schema):
        if pa.types.is_string(kind.type):
            table = table.set_column(at, kind.name, pc.utf8_slice_codeunits(table.column(at), 0, 100))
    return table


def _member(keys: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    import numpy as np

    if not len(ordered):
        return np.zeros(len(keys), dtype=bool)
    at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.asarray(ordered[at] == keys)


def _write_part(table: pa.Table, file: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(table, file, compression="zstd", compression_level=1)


@contextmanager
def _quarantine(file: Path, manifest: dict[str, Any]) -> Iterator[Any]:
    """A function that appends one bad value: its row's number in its file (1 = first row of data), shortened."""
    starts, before = [], 0
    for known in manifest["files"]:
        starts.append((before, known["name"]))
        before += known["rows"]
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["row", "column", "value", "reason", "file"])

        def write(row: int, column: str, value: Any, reason: str, file: str = "") -> None:
            start, name = next(((s, n) for s, n in reversed(starts) if s < row), (0, ""))
            rows.writerow([row - start, column, shorten(value), reason, file or name])

        yield write


def shorten(value: Any) -> str:
    """A value for a report: at most 40 characters, on one line."""
    text = "" if value is None else str(value)
    shown = text[:_SHOWN].encode("unicode_escape").decode() if not text[:_SHOWN].isprintable() else text[:_SHOWN]
    return shown + (f"... ({len(text)} characters)" if len(text) > _SHOWN else "")


def _refuse_if_too_bad(report: dict[str, Any], limit: float, quarantine: str, cure: str) -> None:
    share = report["bad"] / max(report["rows"], 1)
    if report["good"] and share <= limit:
        return
    reasons = "; ".join(f"{r['column'] or 'row'}: {r['reason']} ({r['values']})" for r in report["reasons"][:5])
    fix = f"see {quarantine}; correct the source, or say how it is read (data.*)"
    if cure:
        fix = f"read them as what they look like: {cure}"
    elif report["good"] and share <= _FEW:
        accepted = setting("data.max_bad_share", round(share + 0.01, 2))
        fix = f"see {quarantine}; correct the source, or accept it: {accepted}"
    raise PlatformError(
        f"{report['bad']} of {report['rows']} rows are bad ({share:.1%}, the limit is {limit:.1%})",
        detail=reasons,
        fix=fix,
        code="too_many_bad_rows",
        quarantine=quarantine,
    )


def _check_labels(sample: pd.DataFrame, task: Task) -> None:
    if sample[task.label].nunique() < 2:
        only, kinds = sample[task.label].iloc[0], get_evaluation(problem_of(task)).two_kinds
        raise PlatformError(
            f"all rows have the same {task.label!r}: {shorten(only)}",
            fix=f"give data with at least two {kinds}, or name another column: --set data.columns.{task.label}=NAME",
            code="one_class",
            column=task.label,
        )
