"""From articles to the three parts of a data set: labels, test files of a benchmark, slices, and a split by text."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.tasks.base import DataConfig, Task
    from pipelines.tasks.news.config import NewsConfig

FIELDS = ("title", "content")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_KANA_HANGUL = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")
_WORD = re.compile(r"[^\W\d_\u3400-\u4dbf\u4e00-\u9fff]+")


def split_articles(task: Task, frame: pd.DataFrame, config: NewsConfig) -> dict[str, pd.DataFrame]:
    """``train``, ``valid`` and ``test``, each with title, content, id, label and the slices.

    Raises:
        PlatformError: fewer than two classes, or a test file with a class that the training data does not have.
    """
    articles = _prepare(task, frame, config)
    split = config.split
    if not split.test_source:
        shares = {"test": split.test_share, "valid": split.valid_share}
        part = assign(articles["_key"].tolist(), articles["label"].tolist(), shares, config.seed)
        parts = {name: articles[[p == name for p in part]] for name in ("train", "valid", "test")}
    else:
        test = _prepare(task, read_articles(task, split.test_source, split.test_data), config)
        rest = articles[~articles["_key"].isin(set(test["_key"]))]
        part = assign(rest["_key"].tolist(), rest["label"].tolist(), {"valid": split.valid_share}, config.seed)
        parts = {name: rest[[p == name for p in part]] for name in ("train", "valid")} | {"test": test}
    _check(parts)
    return {name: rows.drop(columns="_key").reset_index(drop=True) for name, rows in parts.items()}


def assign(keys: list[str], labels: list[str], shares: dict[str, float], seed: int) -> list[str]:
    """The part of each row: a name in `shares`, or "train".

    Rows with the same key get the same part. Within a label, keys are ranked by a hash with the seed and cut at the
    shares, so that every part has the classes in proportion whatever the order of the rows.
    """
    label_of: dict[str, str] = {}
    for key, label in zip(keys, labels, strict=True):
        label_of[key] = min(label, label_of.get(key, label))
    by_label: dict[str, list[str]] = {}
    for key, label in label_of.items():
        by_label.setdefault(label, []).append(key)
    part_of: dict[str, str] = {}
    for members in by_label.values():
        ranked = sorted(members, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
        start, share_so_far = 0, 0.0
        for name, share in shares.items():
            share_so_far += share
            end = round(share_so_far * len(ranked))
            part_of.update(dict.fromkeys(ranked[start:end], name))
            start = max(start, end)
        part_of.update(dict.fromkeys(ranked[start:], "train"))
    return [part_of[key] for key in keys]


def text_key(title: str, content: str) -> str:
    """Equal for texts that differ in case, spacing and width of characters only."""
    text = unicodedata.normalize("NFKC", f"{title}\n{content}").casefold()
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "replace")).hexdigest()


def language(text: str) -> str:
    """By script: "zh" for mostly Chinese characters, "en" for mostly Latin letters of ASCII, else "other"."""
    sample = text[:2000]
    han, other_asian = len(_HAN.findall(sample)), len(_KANA_HANGUL.findall(sample))
    ascii_letters = sum(c.isascii() and c.isalpha() for c in sample)
    letters = sum(c.isalpha() for c in sample)
    if letters and han > 0.3 * letters and other_asian < 0.1 * letters:
        return "zh"
    return "en" if letters and ascii_letters > 0.9 * letters else "other"


def length_band(text: str) -> str:
    """By words (a Chinese character counts as one): short (under 20), medium (under 100) or long."""
    words = len(_WORD.findall(text)) + len(_HAN.findall(text))
    return "short" if words < 20 else "medium" if words < 100 else "long"


def read_articles(task: Task, source: str, data: DataConfig) -> pd.DataFrame:
    """A test source, read as ingest reads: columns of the task, as strings.

    Raises:
        PlatformError: as ingest does, and ``code="bad_source"`` when a row cannot be read.
    """
    import pandas as pd

    from pipelines.steps.columns import select
    from pipelines.steps.sources import TextFormat, column_names, list_files, read_chunks

    form = TextFormat(header=data.header, delimiter=data.delimiter, quoted=data.quoted)
    frames = []
    for path in list_files(source):
        names = column_names(path, form)
        chosen = select(names, task, data, path.name)
        for chunk in read_chunks(path, names, form):
            if chunk.rejected:
                bad = chunk.rejected[0]
                raise PlatformError(
                    f"test source {path.name}: row {bad.row} cannot be read",
                    detail=bad.reason,
                    fix="correct the row, or split.test_data (header, delimiter, quoted)",
                    code="bad_source",
                    row=bad.row,
                )
            frames.append(chosen.apply(chunk.table).to_pandas())
    frame = pd.concat(frames, ignore_index=True)
    return frame.reindex(columns=[column.name for column in task.columns])


def _prepare(task: Task, frame: pd.DataFrame, config: NewsConfig) -> pd.DataFrame:
    import pandas as pd

    label = frame[task.label].astype("object")
    if label.isna().any() or (label == "").any():
        row = int((label.isna() | (label == "")).to_numpy().argmax()) + 1
        raise PlatformError(
            f"row {row} has no {task.label}", fix="give every article a category", code="bad_label", row=row
        )
    label = label.astype(str).str.strip()
    fields = {name: frame[name].fillna("").astype(str) for name in FIELDS}
    out = pd.DataFrame(fields, index=frame.index)
    out["id"] = frame[task.id].astype(str) if frame[task.id].notna().all() else [str(i) for i in range(len(frame))]
    out["label"] = label.map(lambda name: config.labels.get(name, name))
    texts = [f"{title}\n{content}" for title, content in zip(out["title"], out["content"], strict=True)]
    out["slice_language"] = [language(text) for text in texts]
    out["slice_length"] = [length_band(text) for text in texts]
    out["_key"] = [text_key(*pair) for pair in zip(out["title"], out["content"], strict=True)]
    return out


def _check(parts: dict[str, pd.DataFrame]) -> None:
    known = set(parts["train"]["label"])
    if len(known) < 2:
        raise PlatformError(
            f"a classifier needs two classes, the training part has {len(known)}",
            detail=f"classes: {', '.join(sorted(known)) or 'none'}; {len(parts['train'])} articles",
            fix="give more articles, or map the columns: --set data.columns.category=NAME",
            code="bad_data",
        )
    for name in ("valid", "test"):
        if parts[name].empty:
            raise PlatformError(
                f"the {name} part has no articles",
                detail=f"train has {len(parts['train'])}",
                fix=f"give more articles or a larger split.{name}_share",
                code="bad_data",
            )
        if unknown := sorted(set(parts[name]["label"]) - known):
            raise PlatformError(
                f"the {name} part has class {unknown[0]!r}, which the training part does not have",
                detail=f"classes of the training part: {', '.join(sorted(known)[:20])}",
                fix='name the class as in training: --set \'labels={"OLD": "NEW"}\'; a class needs several articles',
                code="bad_label",
                labels=unknown[:20],
            )


def default_articles(config: Any, columns: list[str]) -> Any:
    """The shipped sample as one Arrow table of strings."""
    from pathlib import Path

    import pyarrow as pa
    from pyarrow import csv

    types = dict.fromkeys(columns, pa.string())
    options = csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    parse = csv.ParseOptions(newlines_in_values=True)
    return csv.read_csv(Path(__file__).with_name("sample.csv"), convert_options=options, parse_options=parse)
