"""From texts to the three parts of a data set: labels, test files of a benchmark, slices, and a split by text."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol, cast

from contracts.errors import PlatformError
from contracts.texts import language
from pipelines.data.origins import source_here
from pipelines.data.value_format import as_numbers
from pipelines.settings import setting

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.recipes.text.settings import SplitConfig, TextTaskConfig
    from pipelines.task import Column, DataConfig, Task


class Texts(Protocol):
    """A task whose rows are texts, see `pipelines.recipes.text.task.TextTask`."""

    columns: tuple[Column, ...]
    label: str
    id: str
    fields: Mapping[str, str]
    texts: str

    def labels(self, values: pd.Series[Any], config: Any) -> pd.Series[Any]: ...

    def keys(self, rows: pd.DataFrame) -> list[str]: ...

    def strata(self, labels: pd.Series[Any]) -> list[str]: ...

    def check_labels(self, parts: Mapping[str, pd.DataFrame], config: Any) -> None: ...


_LETTERS = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\d_\u3400-\u4dbf\u4e00-\u9fff]+")


def split_texts(task: Texts, frame: pd.DataFrame, config: TextTaskConfig) -> dict[str, pd.DataFrame]:
    """``train``, ``valid`` and ``test``, each with the fields, id, label, row_key and the slices.

    Raises:
        PlatformError: shares that leave nothing, a part without rows, or labels that the task refuses.
    """
    split = config.split
    check_shares(split)
    rows = _prepare(task, frame, config)
    held = task.keys(rows)
    parts, theirs = dict[str, "pd.DataFrame"](), set[str]()
    for name in ("test", "valid"):
        if address := getattr(split, f"{name}_source"):
            with source_here(address, "build_dataset") as here:
                given = _prepare(task, read_texts(task, here, _test_data(split.test_data, config.data)), config)
            parts[name] = given[[key not in theirs for key in task.keys(given)]]
            theirs.update(task.keys(given))
    rest, left = rows[[key not in theirs for key in held]], [key for key in held if key not in theirs]
    shares = {name: getattr(split, f"{name}_share") for name in ("test", "valid") if name not in parts}
    part = assign(left, task.strata(rest["label"]), shares)
    parts |= {name: rest[[p == name for p in part]] for name in ("train", *shares)}
    parts = {name: parts[name] for name in ("train", "valid", "test")}
    task.check_labels(parts, config)
    check_rows(task, parts, config)
    return {name: rows.reset_index(drop=True) for name, rows in parts.items()}


def assign(keys: Sequence[str], labels: Sequence[str], shares: Mapping[str, float]) -> list[str]:
    """The part of each row: a name in `shares`, or "train".

    A hash of the key is held against fixed limits, so rows with the same key are together, and a row stays in its part
    whatever the seed, the order of the rows and the rows beside it. Every class is in every part when it has a key for
    each: a part that none of its hashes falls into takes the nearest one. With fewer keys than parts, training comes
    first, then `shares` in their order. Only in such a class can a row change its part when rows are added.
    """
    label_of: dict[str, str] = {}
    for key, label in zip(keys, labels, strict=True):
        label_of[key] = min(label, label_of.get(key, label))
    by_label: dict[str, list[tuple[int, str]]] = {}
    for key, label in label_of.items():
        number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
        by_label.setdefault(label, []).append((number, key))
    wanted = {name: share for name, share in shares.items() if share > 0}
    limits = [int(total * 2**64) for total in accumulate(wanted.values())]
    part_of: dict[str, str] = {}
    for members in by_label.values():
        members.sort()
        start, spare = 0, len(members) - 1  # one key is for training
        for at, (name, limit) in enumerate(zip(wanted, limits, strict=True)):
            due, later = int(at < spare), max(0, min(len(wanted), spare) - at - 1)
            end = bisect_left(members, (limit, ""), lo=start)
            end = min(max(end, start + due), len(members) - 1 - later)
            part_of.update((key, name) for _, key in members[start:end])
            start = end
        part_of.update((key, "train") for _, key in members[start:])
    return [part_of[key] for key in keys]


def text_key(*fields: str) -> str:
    """Equal for texts that differ in case, spacing and width of characters only."""
    text = unicodedata.normalize("NFKC", "\n".join(fields)).casefold()
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "replace")).hexdigest()


def length_band(text: str) -> str:
    """By words (a Chinese character counts as one): short (under 20), medium (under 100) or long."""
    words = len(_LETTERS.findall(text))
    return "short" if words < 20 else "medium" if words < 100 else "long"


def _test_data(test: DataConfig, data: DataConfig) -> DataConfig:
    """Personal data in test sources is treated as in the others, where nothing else is said."""
    return replace(test, pii=test.pii or data.pii)


def read_texts(task: Texts, source: str, data: DataConfig) -> pd.DataFrame:
    """A source of the test or the validation part, read as ingest reads: columns of the task, as strings.

    Raises:
        PlatformError: as ingest does, and ``code="bad_source"`` when a row cannot be read.
    """
    import pandas as pd

    from pipelines.data import forgotten
    from pipelines.data.chunks import text_format
    from pipelines.data.columns import select
    from pipelines.data.personal import PersonalData
    from pipelines.data.sources import column_names, list_files, read_chunks

    form = text_format(data)
    frames = []
    for path in list_files(source):
        names = column_names(path, form)
        chosen = select(names, cast("Task", task), data, path)
        kept = [*(name for _, name in chosen.keep), *chosen.numbered]
        personal = PersonalData.of_columns(data, {name: name for name in kept}, strict=True)
        for chunk in read_chunks(path, names, form):
            if chunk.rejected:
                bad = chunk.rejected[0]
                raise PlatformError(
                    f"{path.name}, of the test or the validation part: row {bad.row} cannot be read",
                    detail=bad.reason,
                    fix="correct the row, or split.test_data (header, delimiter, quoted)",
                    code="bad_source",
                    row=bad.row,
                )
            known = forgotten.without(replace(chunk, table=chosen.apply(chunk.table)))
            frames.append(personal.apply(known).table.to_pandas())
    frame = pd.concat(frames, ignore_index=True)
    found: pd.DataFrame = frame.reindex(columns=[column.name for column in task.columns])
    return found


def class_labels(task: Texts, label: pd.Series[Any], names: Mapping[str, str]) -> pd.Series[Any]:
    """The class of each row, as `names` calls it.

    Raises:
        PlatformError: a row has none.
    """
    return reference_labels(task, label).str.strip().map(lambda name: names.get(name, name))


def reference_labels(task: Texts, label: pd.Series[Any]) -> pd.Series[Any]:
    """The text of each row, as it is.

    Raises:
        PlatformError: a row has none.
    """
    label = label.astype("object")
    if label.isna().any() or (label == "").any():
        row = int((label.isna() | (label == "")).to_numpy().argmax()) + 1
        raise PlatformError(
            f"row {row} has no {task.label}", fix="give every row one, or leave it out", code="bad_label", row=row
        )
    return label.astype(str)


def number_labels(task: Texts, label: pd.Series[Any]) -> pd.Series[Any]:
    """The number of each row.

    Raises:
        PlatformError: a row has none.
    """
    import numpy as np

    numbers = as_numbers(label).astype("float64")
    if not (known := np.isfinite(np.asarray(numbers))).all():
        row = int((~known).argmax()) + 1
        raise PlatformError(
            f"row {row}: {task.label} is {label.iloc[row - 1]!r}, not a number",
            fix="give every row one, or leave it out",
            code="bad_label",
            row=row,
        )
    return numbers


def _prepare(task: Texts, frame: pd.DataFrame, config: TextTaskConfig) -> pd.DataFrame:
    import pandas as pd

    label = task.labels(frame[task.label], config)
    fields = {name: frame[name].fillna("").astype(str) for name in task.fields}
    out = pd.DataFrame(fields, index=frame.index)
    out["id"] = frame[task.id].astype(str) if frame[task.id].notna().all() else [str(i) for i in range(len(frame))]
    out["label"] = label
    texts = ["\n".join(row) for row in _rows(out, task.fields)]
    out["slice_language"] = [language(text) for text in texts]
    out["slice_length"] = [length_band(text) for text in texts]
    out["row_key"] = [text_key(*row) for row in _rows(out, task.fields)]
    return out


def _rows(frame: pd.DataFrame, names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    return zip(*(frame[name] for name in names), strict=True)


def text_keys(rows: pd.DataFrame, together: Sequence[str]) -> list[str]:
    """The same for rows whose fields `together` are the same text; () for all fields."""
    return [text_key(*row) for row in _rows(rows, together)] if together else rows["row_key"].tolist()


def check_shares(split: SplitConfig) -> None:
    """Refuse shares that leave nothing for training.

    Raises:
        PlatformError: saying so.
    """
    shares = {
        f"split.{name}_share": getattr(split, f"{name}_share")
        for name in ("valid", "test")
        if not getattr(split, f"{name}_source")
    }
    if min(shares.values(), default=0) < 0 or sum(shares.values()) >= 1:
        raise PlatformError(
            "the shares of the split leave nothing for training",
            detail=", ".join(f"{name} is {share:g}" for name, share in shares.items()),
            fix=f"give shares that add up to less than 1: {' '.join(f'--set {name}=0.2' for name in shares)}",
            code="bad_config",
        )


def _renamed(wrong: str, known: list[str], labels: Mapping[str, str]) -> str:
    """The setting that gives class `wrong` the name of a known one, beside the names that are given already."""
    right = next((name for name in known if name.casefold() == wrong.casefold()), "CLASS")
    return setting("labels", {**{old: right if new == wrong else new for old, new in labels.items()}, wrong: right})


def _check_order(known: set[str], order: Sequence[str]) -> None:
    if not order or sorted(known) == sorted(order):
        return
    beside, absent = sorted(known - set(order)), [name for name in order if name not in known]
    twice = [f"{name!r} stands twice" for name in order if order.count(name) > 1]
    why = [*(f"{name!r} is not in it" for name in beside), *(f"no row is {name!r}" for name in absent), *twice]
    raise PlatformError(
        f"order does not name the classes of the training part: {why[0]}",
        detail=f"order: {', '.join(order)}; classes: {', '.join(sorted(known)[:20])}",
        fix=f"name each class once, from the lowest to the highest: {setting('order', sorted(known))}",
        code="bad_label",
        labels=[*beside, *absent][:20],
    )


def check_classes(task: Texts, parts: Mapping[str, pd.DataFrame], config: Any) -> None:
    """Two classes or more, as `order` names them, and none in another part that is not in training.

    Raises:
        PlatformError: saying what is wrong.
    """
    known = set(parts["train"]["label"])
    _check_order(known, getattr(config, "order", ()))
    if len(known) < 2:
        raise PlatformError(
            f"a classifier needs two classes, the training part has {len(known)}",
            detail=f"classes: {', '.join(sorted(known)) or 'none'}; {len(parts['train'])} {task.texts}",
            fix=f"give more {task.texts}, or map the columns: --set data.columns.{task.label}=NAME",
            code="bad_data",
        )
    check_known(
        {name: set(rows["label"]) for name, rows in parts.items()},
        "class",
        "classes",
        lambda one: f"name it as in training: {_renamed(one, sorted(known), config.labels)}; or give more of it",
    )


def check_known(found: Mapping[str, set[str]], one: str, all_of: str, fix: Callable[[str], str]) -> None:
    """Refuse labels of the other parts that the training part does not have.

    Args:
        found: labels of ``train``, ``valid`` and ``test``.  one, all_of: as messages call a label, and several.
        fix: what to do about one.

    Raises:
        PlatformError: naming the part and the label.
    """
    known = found["train"]
    for part in ("valid", "test"):
        if unknown := sorted(found[part] - known):
            raise PlatformError(
                f"the {part} part has {one} {unknown[0]!r}, which the training part does not have",
                detail=f"{all_of} of the training part: {', '.join(sorted(known)[:20])}",
                fix=fix(unknown[0]),
                code="bad_label",
                labels=unknown[:20],
            )


def check_two(task: Texts, parts: Mapping[str, pd.DataFrame], part: str, who: str, what: str) -> None:
    """Refuse a part whose labels are all the same.

    Raises:
        PlatformError: saying so.
    """
    found = parts[part]["label"].nunique()
    if found < 2:
        raise PlatformError(
            f"{who} needs two {what}, the {part} part has {found}",
            detail=f"{len(parts[part])} {task.texts}",
            fix=f"give more {task.texts}, or map the columns: --set data.columns.{task.label}=NAME",
            code="bad_data",
        )


def check_known_labels(task: Texts, parts: Mapping[str, pd.DataFrame]) -> None:
    """Refuse data without a label, or with one that the training part does not have.

    Raises:
        PlatformError: naming it.
    """
    from pipelines.evaluation.multilabel import labels_of

    names = {part: {name for text in rows["label"] for name in labels_of(text)} for part, rows in parts.items()}
    if not names["train"]:
        raise PlatformError(
            f"no row of the training part has a label in {task.label}",
            detail=f"{len(parts['train'])} {task.texts}",
            fix=f"separate the labels of a row by |, or map the columns: --set data.columns.{task.label}=NAME",
            code="bad_data",
        )
    check_known(names, "label", "labels", lambda one: "give more rows of it")


def rarest(names: Sequence[Sequence[str]]) -> list[str]:
    """Of each row that one of its names which the fewest have; "" where it has none."""
    count = Counter(name for some in names for name in some)
    return [min(some, key=lambda name: (count[name], name), default="") for some in names]


def check_rows(task: Texts, parts: Mapping[str, pd.DataFrame], config: Any) -> None:
    """Refuse a part without rows.

    Raises:
        PlatformError: naming it.
    """
    for name in ("valid", "test"):
        if parts[name].empty:
            none = getattr(config.split, f"{name}_share") == 0
            raise PlatformError(
                f"the {name} part has no {task.texts}",
                detail=f"train has {len(parts['train'])}",
                fix=f"give it a share: {setting(f'split.{name}_share', 0.2)}" if none else f"give more {task.texts}",
                code="bad_data",
            )
