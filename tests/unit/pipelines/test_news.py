"""The task `news`: its sample, its split, and both recipes from articles to a served model."""

from __future__ import annotations

import csv
import hashlib
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipelines.tasks.news
from contracts.bundle import Bundle, BundleDocument
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.texts import language
from pipelines.data import left_out
from pipelines.recipes.text.split import assign, length_band, text_key
from pipelines.settings import parse_setting
from pipelines.task import dump_config
from pipelines.tasks import get_task, load_config, recipe_config
from tests.s3_folder import FolderClient

TASK = get_task("news")
SMALL_LSTM = {
    "model.embedding": 8,
    "model.hidden": 4,
    "training.epochs": 3,
    "training.batch_size": 32,
    "text.max_tokens": 40,
}


def config_of(recipe: str, **changes: Any) -> Any:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return load_config(TASK, dump_config(recipe_config(TASK, recipe, given)))


@pytest.fixture(scope="module")
def sample() -> pd.DataFrame:
    return pd.concat([table.to_pandas() for table in TASK.default_source(config_of("linear"))])


@pytest.fixture(scope="module")
def dataset(sample: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    for name, frame in TASK.split(sample, config_of("linear")).items():
        frame.to_parquet(folder / f"{name}.parquet")
    return folder


def test_the_sample_is_balanced_in_classes_and_languages(sample: pd.DataFrame) -> None:
    assert sample.columns.tolist() == ["id", "category", "title", "content"]
    assert sample["id"].is_unique
    assert Counter(sample["category"]) == dict.fromkeys(["business", "culture", "health", "sports", "technology"], 40)
    languages = Counter(zip(sample["category"], map(language, sample["content"]), strict=True))
    assert set(languages.values()) == {20}
    for name in ("title", "content"):
        assert sample[name].is_unique
        assert (sample[name].str.len() >= 5).all()


def test_the_sample_is_plain_csv_in_utf_8() -> None:
    file = Path(pipelines.tasks.news.__file__).with_name("sample.csv")
    with file.open(encoding="utf-8", newline="") as stream:
        assert {len(row) for row in csv.reader(stream)} == {4}
    assert file.stat().st_size < 100_000


SHARES = {"test": 0.3, "valid": 0.2}
TEXTS = st.lists(st.tuples(st.text("abcdefgh", max_size=6), st.sampled_from("xyz")), min_size=1, max_size=60)


def test_the_parts_have_every_class_in_about_its_proportion(sample: pd.DataFrame) -> None:
    parts = TASK.split(sample, config_of("linear"))
    for name, low, high in (("train", 120, 160), ("valid", 10, 30), ("test", 25, 55)):
        assert low < len(parts[name]) < high
        assert set(parts[name]["label"]) == set(sample["category"])
    expected = {"title", "content", "id", "label", "row_key", "slice_language", "slice_length"}
    assert all(set(frame.columns) == expected for frame in parts.values())
    assert sorted(pd.concat(parts.values())["id"]) == sorted(sample["id"])


def test_shares_are_met_on_many_texts() -> None:
    parts = Counter(assign([f"text {i}" for i in range(20_000)], ["a", "b"] * 10_000, SHARES))
    assert {name: count / 20_000 for name, count in parts.items()} == pytest.approx(
        {"test": 0.3, "valid": 0.2, "train": 0.5}, abs=0.01
    )


def test_the_split_depends_on_texts_alone(sample: pd.DataFrame) -> None:
    def ids(frame: pd.DataFrame, seed: int) -> dict[str, set[str]]:
        return {name: set(part["id"]) for name, part in TASK.split(frame, config_of("linear", seed=seed)).items()}

    assert ids(sample, 7) == ids(sample[::-1], 8)


@given(rows=TEXTS)
@settings(deadline=None)
def test_one_text_is_never_in_two_parts(rows: list[tuple[str, str]]) -> None:
    keys, labels = zip(*rows, strict=True)
    parts = assign(keys, labels, SHARES)
    assert len({(key, part) for key, part in zip(keys, parts, strict=True)}) == len(set(keys))
    assert set(parts) <= {"train", "valid", "test"}


@given(rows=st.dictionaries(st.text("abcdefgh", max_size=6), st.sampled_from("xyz"), min_size=1, max_size=60))
@settings(deadline=None)
def test_a_class_is_in_every_part_that_it_has_a_text_for(rows: dict[str, str]) -> None:
    parts = assign(list(rows), list(rows.values()), SHARES)
    for label, count in Counter(rows.values()).items():
        has = {part for part, of in zip(parts, rows.values(), strict=True) if of == label}
        assert has >= set(["train", "test", "valid"][:count])


def natural(key: str) -> str:
    """The part that the hash of a text alone says."""
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "test" if share < 0.3 else "valid" if share < 0.5 else "train"


@given(
    rows=st.dictionaries(st.text("abcdefgh", max_size=6), st.sampled_from("xyz"), min_size=1, max_size=60),
    more=st.dictionaries(st.text("ijk", min_size=1, max_size=6), st.sampled_from("wxyz"), max_size=60),
)
@settings(deadline=None)
def test_no_text_moves_when_texts_are_added(rows: dict[str, str], more: dict[str, str]) -> None:
    before = dict(zip(rows, assign(list(rows), list(rows.values()), SHARES), strict=True))
    after = dict(zip(more | rows, assign(list(more | rows), list((more | rows).values()), SHARES), strict=True))
    for label in set(rows.values()):
        texts = [key for key, of in rows.items() if of == label]
        if len({natural(key) for key in texts}) == 3:  # else the class is too small to be left to its hashes
            assert {key: after[key] for key in texts} == {key: before[key] for key in texts}
            assert all(before[key] == natural(key) for key in texts)


def test_shares_that_leave_nothing_for_training_are_refused(sample: pd.DataFrame) -> None:
    with pytest.raises(PlatformError, match="leave nothing for training") as caught:
        TASK.split(sample, config_of("linear", split__test_share=0.9, split__valid_share=0.1))
    assert "--set split.test_share=0.2" in caught.value.fix


def test_texts_that_differ_in_spacing_case_and_width_are_the_same() -> None:
    assert text_key("A Cup", "ＴＥＡ  time\n") == text_key("a cup", "tea time")
    assert text_key("a", "b") != text_key("a", "c")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The match was won", "en"),
        ("球队 3:0 获胜 NBA", "zh"),
        ("Матч был выигран", "other"),
        ("今日は天気がいいですね", "other"),
        ("12 345", "other"),
        ("", "other"),
    ],
)
def test_language_is_told_by_script(text: str, expected: str) -> None:
    assert language(text) == expected


def test_length_counts_words_and_chinese_characters() -> None:
    assert [length_band(t) for t in ("word " * 19, "word " * 20, "字" * 99, "字" * 100)] == [
        "short",
        "medium",
        "medium",
        "long",
    ]


def articles(n: int, *, labels: tuple[str, ...] = ("a", "b"), start: int = 0) -> pd.DataFrame:
    numbers = range(start, start + n)
    return pd.DataFrame(
        {
            "id": [str(i) for i in numbers],
            "category": [labels[i % len(labels)] for i in numbers],
            "title": None,
            "content": [f"story number {i}" for i in numbers],
        }
    )


@pytest.mark.parametrize("remote", [False, True])
def test_a_test_file_of_another_layout_becomes_the_test_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool
) -> None:
    file = tmp_path / "benchmark.tsv"
    client = FolderClient(tmp_path.parent)
    monkeypatch.setattr("contracts.storage._client", lambda: client)
    file.write_text('2\tstory number 3\n1\tStory "number" 500\n', encoding="utf-8")
    config = config_of(
        "linear",
        labels={"1": "a", "2": "b"},
        split__test_source=f"s3://{tmp_path.name}/benchmark.tsv" if remote else str(file),
        split__test_data={
            "columns": {"id": "#row", "category": "0", "content": "1"},
            "header": False,
            "delimiter": "\t",
            "quoted": False,
        },
    )
    parts = TASK.split(articles(100), config)
    assert parts["test"]["content"].tolist() == ["story number 3", 'Story "number" 500']
    assert parts["test"]["label"].tolist() == ["b", "a"]
    assert parts["test"]["id"].tolist() == ["1", "2"]
    rest = pd.concat([parts["train"], parts["valid"]])["content"]
    assert len(rest) == 99
    assert "story number 3" not in set(rest)
    told = left_out.of_split(TASK, articles(100), parts, config, None)
    assert [(group["reason"], group["rows"]) for group in told["groups"]] == [
        ("the text stands in split.test_source too", 1)
    ]


@pytest.mark.parametrize("test", [False, True])
def test_a_validation_file_becomes_the_validation_part(tmp_path: Path, test: bool) -> None:
    lines = {"valid": "a\tstory number 3\nb\tStory 500\na\tlast\n", "test": "b\tstory number 4\na\tlast\n"}
    files = {name: tmp_path / f"{name}.tsv" for name in lines}
    for name, file in files.items():
        file.write_text(lines[name], encoding="utf-8")
    data = {"columns": {"id": "#row", "category": "0", "content": "1"}, "header": False, "delimiter": "\t"}
    given = {"split__valid_source": str(files["valid"]), "split__test_data": data, "split__valid_share": -1.0}
    if test:
        given["split__test_source"] = str(files["test"])
    config = config_of("linear", **given)
    frame = articles(100)
    parts = TASK.split(frame, config)
    assert list(parts) == ["train", "valid", "test"]
    assert parts["valid"]["content"].tolist() == ["story number 3", "Story 500", *([] if test else ["last"])]
    rest = set(parts["train"]["content"]) | (set() if test else set(parts["test"]["content"]))
    assert rest == set(frame["content"]) - {"story number 3", *(["story number 4"] if test else [])}
    told = left_out.of_split(TASK, frame, parts, config, None)
    both = "split.test_source or split.valid_source" if test else "split.valid_source"
    assert [(group["reason"], group["rows"]) for group in told["groups"]] == [
        (f"the text stands in {both} too", 2 if test else 1)
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1\tnew\n", "class '1'"),
        ("\tnew\n", "row 1 has no category"),
        ("a\tnew\tmore\n" * 2 + "b\n", "row 3 cannot be read"),
    ],
)
def test_a_bad_test_file_is_an_error_that_names_the_place(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "bad.tsv"
    file.write_text(line, encoding="utf-8")
    data = {"columns": {"id": "#row", "category": "0", "content": "1"}, "header": False, "delimiter": "\t"}
    with pytest.raises(PlatformError, match=message):
        TASK.split(articles(40), config_of("linear", split__test_source=str(file), split__test_data=data))


def test_a_test_file_that_names_a_class_otherwise_is_read_when_its_cure_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "other.tsv"
    file.write_text("A\tnew\nb\tnewer\nB x\tnewest\n", encoding="utf-8")
    data = {"columns": {"id": "#row", "category": "0", "content": "1"}, "header": False, "delimiter": "\t"}
    given = {"split.test_source": str(file), "split.test_data": data, "labels": {"one": "a"}}
    seen = []
    for _ in range(3):
        try:
            parts = TASK.split(articles(40), recipe_config(TASK, "linear", given))
            break
        except PlatformError as err:
            words = shlex.split(err.fix.partition(": ")[2].partition(";")[0])
            seen.append(words[1])
            given |= dict([parse_setting(words[1].replace("CLASS", "b"))])
    assert seen == ['labels={"one": "a", "A": "a"}', 'labels={"one": "a", "A": "a", "B x": "CLASS"}']
    assert parts["test"]["label"].tolist() == ["a", "b", "b"]


def test_one_class_or_too_few_articles_are_refused() -> None:
    with pytest.raises(PlatformError, match="needs two classes"):
        TASK.split(articles(40, labels=("a",)), config_of("linear"))
    with pytest.raises(PlatformError, match="part has no articles"):
        TASK.split(articles(3), config_of("linear"))


def test_missing_titles_are_empty_and_missing_labels_are_named() -> None:
    frame = articles(40)
    assert set(TASK.split(frame, config_of("linear"))["train"]["title"]) == {""}
    frame.loc[2, "category"] = None
    with pytest.raises(PlatformError, match="row 3 has no category"):
        TASK.split(frame, config_of("linear"))


def served(folder: Path, recipe: str, classes: list[str]) -> Any:
    document = BundleDocument.model_validate(
        {
            "name": "news",
            "task": "news",
            "recipe": recipe,
            "modality": "text",
            "engine": "onnx",
            "signature": {
                "inputs": [item.model_dump() for item in TASK.inputs(config_of(recipe))],
                "classes": classes,
            },
            "gate": {"passed": True, "checks": []},
            "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "now"},
            "files": {},
        }
    )
    return load_engine(Bundle(folder, document, "digest"))


def accuracy(engine: Any, classes: list[str], frame: pd.DataFrame) -> float:
    found = engine.predict({name: frame[name].to_numpy(object) for name in ("title", "content")})
    return float((np.array(classes)[found.argmax(axis=1)] == frame["label"]).mean())


def quiet(*args: Any, **metrics: Any) -> None:
    pass


def test_linear_learns_the_sample_in_both_languages(dataset: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    progress: Callable[..., None] = lambda done, total, **metrics: seen.append((done, total))  # noqa: E731
    found = config_of("linear").train(TASK, dataset, tmp_path / "model", tmp_path / "c", progress)
    assert found["engine"] == "onnx"
    assert found["decision"] is None
    assert found["device"] == "cpu"
    assert seen[-1] == (4, 4)
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "model.onnx",
        "terms.npy",
        "text.json",
        "tokenizer.json",
    ]
    unseen = pd.concat([pd.read_parquet(dataset / f"{name}.parquet") for name in ("valid", "test")])
    engine = served(tmp_path, "linear", found["output"]["classes"])
    for _, rows in unseen.groupby("slice_language"):
        assert len(rows) > 25
        assert accuracy(engine, found["output"]["classes"], rows) >= 0.45  # chance is 0.2


def test_linear_gives_the_same_files_again(dataset: Path, tmp_path: Path) -> None:
    config = config_of("linear", model__strengths=[0.3], text__unit="character", model__longest_ngram=3)
    for name in ("a", "b"):
        config.train(TASK, dataset, tmp_path / name, tmp_path / "c", quiet)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_terms_that_are_never_frequent_enough_are_an_error(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="no term is frequent enough"):
        config_of("linear", model__min_documents=1000).train(TASK, dataset, tmp_path, tmp_path, quiet)


@pytest.fixture(scope="module")
def lstm(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    pytest.importorskip("torch", reason="the recipe trains with torch")
    folder = tmp_path_factory.mktemp("lstm")
    config = config_of("embedding_lstm", **{key.replace(".", "__"): value for key, value in SMALL_LSTM.items()})
    return folder, config.train(TASK, dataset, folder / "model", folder / "c", quiet)


def test_lstm_is_trained_exported_and_served(lstm: Any, dataset: Path) -> None:
    folder, found = lstm
    assert [entry["epoch"] for entry in found["history"]] == [1, 2, 3]
    assert {"train_loss", "valid_loss", "valid_accuracy"} <= set(found["history"][0])
    assert found["device"] in ("cpu", "cuda", "mps")
    valid = pd.read_parquet(dataset / "valid.parquet")
    measured = accuracy(served(folder, "embedding_lstm", found["output"]["classes"]), found["output"]["classes"], valid)
    best = min(found["history"], key=lambda entry: entry["valid_loss"])
    assert measured == pytest.approx(best["valid_accuracy"])


def test_a_killed_lstm_continues_and_ends_with_the_same_bytes(lstm: Any, dataset: Path, tmp_path: Path) -> None:
    config = config_of("embedding_lstm", **{key.replace(".", "__"): value for key, value in SMALL_LSTM.items()})

    def kill(done: int, total: int, **metrics: Any) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        config.train(TASK, dataset, tmp_path / "model", tmp_path / "c", kill)
    epochs: list[int] = []
    config.train(TASK, dataset, tmp_path / "model", tmp_path / "c", lambda done, *rest, **metrics: epochs.append(done))
    assert epochs == [3]
    for file in (lstm[0] / "model").iterdir():
        assert file.read_bytes() == (tmp_path / "model" / file.name).read_bytes()


def test_importing_the_task_loads_no_heavy_library() -> None:
    import subprocess
    import sys

    code = "import sys, pipelines.tasks.news; print([m for m in ('pandas', 'torch', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
