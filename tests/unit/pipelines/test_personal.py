"""Columns with personal data: found by content, treated as declared, refused where nothing is declared."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from contracts.bundle import Signature
from contracts.errors import PlatformError
from contracts.pii.finding import KINDS
from contracts.pii.kind import Kind
from contracts.pii.prefilter import necessary
from contracts.pii.redaction import KEY
from pipelines.data import personal
from pipelines.data.chunks import ROW, Chunk, Rejected
from pipelines.data.inspection import inspect
from pipelines.data.personal import PersonalData, reading
from pipelines.settings import apply, parse_setting
from pipelines.steps import ingest as step
from pipelines.steps.batch_rows import tables
from pipelines.task import DataConfig
from tests.leftovers import left
from tests.pii_samples import card, mobile, ordinary, samples
from tests.problem_bundles import name_tagger

RNG = random.Random(3)
WRITTEN = (
    "a.b+c@sub.example.co.uk", "41.173.96.26", "6e40:4041:c617:e898:c11:40d2:c669:2eb4", "gb82 west 1234 5698 7654 32",
    "4111 1111 1111 1111", "pay 4111111111111111", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "password: hunter2xyz",
    "Secret='a1b2c3d4'", "11010519491231002X", "id card 110105491231002", "tel13812345678", "+86 138-1234-5678",
    "(021) 6234 5678", "91350100M000100Y43", "passport E12345678", "passport no. AB1234567", "+1-984-182-0190",
    "(579)888-3058", "+4915112345678", "853-37-1694", "ssn 853371694", "1668 Glyn Street, Apt. 5", "P.O. Box 12",
    "Dear Anna, 5", "my name is Bo Li 7", "Dr. van 3, Mr. O'Neil-Smith 4",
)  # fmt: skip


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "0d" * 32)


def chunk(rejected: list[Rejected] | None = None, **columns: list[Any]) -> Chunk:
    rows = len(next(iter(columns.values())))
    return Chunk(pa.table({**columns, ROW: list(range(1, rows + 1))}), rows, rejected or [])


def treated(said: dict[str, str], *, strict: bool = True, **columns: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = (
        PersonalData(DataConfig(pii=said), strict=strict).apply(chunk(**columns)).table.to_pydict()
    )
    return found


def refused(**columns: list[Any]) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        PersonalData(DataConfig()).apply(chunk(**columns))
    assert caught.value.code == "undeclared_pii"
    return caught.value


def test_a_column_is_treated_as_declared() -> None:
    values = ["call 13812345678", None, "", "nothing", "call 13812345678"]
    assert treated({"note": "label"}, note=values)["note"] == ["call [PHONE]", None, "", "nothing", "call [PHONE]"]
    assert treated({"note": "drop:whole"}, note=values)["note"] == ["", None, "", "", ""]
    assert treated({"note": "keep"}, note=values)["note"] == values
    hashed = treated({"note": "hash:whole"}, note=values)["note"]
    assert hashed[0] == hashed[4] != hashed[3]


def test_an_undeclared_column_is_named_with_its_kinds_and_rows() -> None:
    error = refused(note=["fine", "a@b.org", "tel 13812345678 or a@b.org"], other=["x", "y", "京A12345"])
    assert error.context["column"] == "note"
    assert error.context["rows"] == [2, 3]
    assert error.context["kinds"] == {"note": {"email": 2, "phone": 1}, "other": {"plate": 1}}
    assert "email in 2 rows, phone in 1 row" in error.headline
    assert "--set data.pii.note=label --set data.pii.other=label" in error.fix
    assert not any(word in str(error) for word in ("a@b.org", "13812345678", "京A12345"))


@pytest.mark.parametrize(
    ("mention", "said"), [("tel 13812345678 or a@b.org", ""), (f"of {card(RNG)}", "card in 1 row")]
)
def test_a_mention_here_and_there_is_noted_and_only_what_is_proven_is_refused(mention: str, said: str) -> None:
    personal, texts = PersonalData(DataConfig()), ["a story of nobody"] * 150 + [mention]
    if said:
        with pytest.raises(PlatformError, match=said):
            personal.apply(chunk(story=texts))
        return
    assert personal.apply(chunk(story=texts)).table.column("story").to_pylist() == texts
    assert personal.report()["story"] == {"operator": "", "found": {"phone": 1, "email": 1}}


def test_whole_numbers_are_looked_at_as_well() -> None:
    assert refused(phone=pa.array([int(mobile(RNG)) for _ in range(50)])).context["kinds"] == {"phone": {"phone": 50}}
    assert treated({"phone": "mask"}, phone=[13812345678])["phone"] == ["*" * 11]


def test_large_numbers_among_others_are_no_telephones() -> None:
    assert treated({}, revenue=pa.array([1, 13_000_000_001]))["revenue"] == [1, 13_000_000_001]
    amounts = pa.array([RNG.randrange(1_000, 10**11) for _ in range(3000)])
    assert treated({}, revenue=amounts)["revenue"] == amounts.to_pylist()
    assert refused(mobile=pa.array([1, 13_000_000_001])).context["kinds"] == {"mobile": {"phone": 1}}


def test_numbers_that_pass_by_chance_are_none() -> None:
    ids = [str(RNG.randrange(10**15, 10**16)) for _ in range(3000)]
    treated({}, ref=ids)
    assert refused(ref=[*ids[:100], *(card(RNG) for _ in range(100))]).context["column"] == "ref"


def test_names_in_a_text_stop_no_run_and_a_column_of_names_does() -> None:
    texts = ["Mr. Weber was there", "请王先生来"]
    run = PersonalData(DataConfig())
    assert run.apply(chunk(note=texts)).table.column("note").to_pylist() == texts
    assert refused(customer_name=["Anna Berg", "王小明"]).context["kinds"] == {"customer_name": {"name": 2}}
    assert treated({"note": "label"}, note=texts)["note"] == ["Mr. [NAME] was there", "请[NAME]先生来"]


def test_a_name_of_the_source_is_a_word_nearby() -> None:
    data = DataConfig(columns={"document": "护照号"})
    with pytest.raises(PlatformError, match="passport in 2 rows"):
        PersonalData(data).apply(chunk(document=["E12345678", "G87654321"]))


@pytest.mark.parametrize(
    "values",
    [
        ["12.5", "1e-3", "2024-05-06 07:08:09.123456", "C000123", "note 3", "positive", "", "2018-04-01T00:00:00Z"],
        ["一条评论，没有别的。", "Solid keyboard, nice sound.", "it is fine: really", "9.99"],
    ],
)
def test_ordinary_columns_pass(values: list[str]) -> None:
    assert treated({}, note=values)["note"] == values


def test_what_was_said_of_a_built_in_source_is_done_and_the_rest_is_not_looked_at() -> None:
    assert treated({"a": "label"}, strict=False, a=["a@b.org"], b=["a@b.org"]) == {
        "a": ["[EMAIL]"],
        "b": ["a@b.org"],
        ROW: [1],
    }


def test_rows_that_cannot_be_read_keep_nothing() -> None:
    bad = Rejected(2, "", "P1,Zhang,13812345678", "4 values, expected 3", "13812345678")
    (kept,) = PersonalData(DataConfig()).apply(chunk([bad], note=["x"])).rejected
    assert (kept.value, kept.label) == ("P1,Zhang,[PHONE]", "[PHONE]")
    (kept,) = PersonalData(DataConfig(pii={"note": "hash:whole"})).apply(chunk([bad], note=["x"])).rejected
    assert (kept.value, kept.label, kept.reason) == ("(withheld)", "(withheld)", "4 values, expected 3")


def test_the_report_counts_rows_by_kind() -> None:
    run = PersonalData(DataConfig(pii={"note": "label", "name": "hash:whole"}))
    run.apply(chunk(note=["a@b.org", "a@b.org c@d.org", "x"], name=["Li", "Wu", "Xu"]))
    run.apply(chunk(note=["a@b.org", "x", "x"], name=["Li", "Wu", "Xu"]))
    assert run.report() == {
        "note": {"operator": "label", "found": {"email": 3}},
        "name": {"operator": "hash:whole", "found": {}},
    }


def test_rows_that_others_have_read_are_refused_by_their_place_in_the_source() -> None:
    first, second = ["a story of nobody"] * 150 + ["a@b.org"], ["fine", "c@d.org", "e@f.org"]
    with pytest.raises(PlatformError) as expected:
        PersonalData(DataConfig()).apply(chunk(story=[*first, *second]))
    found = []
    for rows in (first, second):
        worker = PersonalData(DataConfig())
        worker.apply(chunk(story=rows), judged=False)
        found.append(json.loads(json.dumps(worker.taken())))
    counted = PersonalData(DataConfig())
    counted.add(found[0], 0)
    with pytest.raises(PlatformError) as caught:
        counted.add(found[1], len(first))
    assert caught.value.as_dict() == expected.value.as_dict()
    assert caught.value.context["rows"] == [151, 153, 154]


@pytest.mark.parametrize("said", [{}, {"note": "keep"}, {"note": "label"}])
def test_texts_that_are_left_out_have_nothing(said: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    signs = "0123456789" * 2 + "abXYZ @.-_:()+\n\t"
    noise = ["".join(RNG.choices(signs, k=RNG.randrange(1, 60))) for _ in range(400)]
    written = [
        f"{before}{text}{after}" for text in WRITTEN for before in ("", "a", " ", "1") for after in ("", "\n", "Z")
    ]
    made_up = [sample.text for sample in samples(5, 6)]
    texts = [*noise, *written, *made_up, *ordinary(5, 100), " ", "", "1 2-3", "٣ 4"]
    found = []
    left_out = len(texts) - len(personal._suspects(pa.array(texts)))
    assert left_out > len(noise) / 2, "or nothing is gained"
    for suspects in (personal._suspects, lambda texts: dict.fromkeys(range(len(texts)), KINDS)):
        monkeypatch.setattr(personal, "_suspects", suspects)
        run = PersonalData(DataConfig(pii=said))
        monkeypatch.setattr(run, "_judge", lambda: None)
        made = run.apply(chunk(note=texts, same=texts)).table.to_pydict()
        found.append((run.taken(), made))
    assert found[0] == found[1]


_ASCII = st.characters(max_codepoint=127)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if necessary(kind)], ids=lambda kind: kind.name)
@settings(max_examples=5)
@given(st.data())
def test_what_a_kind_finds_its_filter_finds(kind: Kind, data: st.DataObject) -> None:
    around = st.text(_ASCII, max_size=3)
    text = data.draw(around) + data.draw(st.from_regex(kind.pattern, alphabet=_ASCII)) + data.draw(around)
    if kind.pattern.search(text):
        assert pc.match_substring_regex(pa.array([text]), necessary(kind))[0].as_py(), repr(text)


def test_settings_that_are_none() -> None:
    for said in ("blur", "keep:whole", "hash:all", ""):
        with pytest.raises(PlatformError, match=r"data\.pii\.note: unknown operator"):
            PersonalData(DataConfig(pii={"note": said}))
    with pytest.raises(PlatformError, match="names 'nte', which is no column") as caught:
        treated({"nte": "label"}, note=["x"])
    assert "note" in caught.value.detail


def test_a_setting_is_written_like_others() -> None:
    document = {"data": {"pii": {}}}
    apply(document, *parse_setting("data.pii.note=hash:whole"))
    assert document == {"data": {"pii": {"note": "hash:whole"}}}


def test_another_key_or_rule_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataConfig(pii={"note": "hash"})
    first = personal.reading(data)
    assert first != personal.reading(DataConfig(pii={"note": "mask"}))
    monkeypatch.setenv(KEY, "0e" * 32)
    assert personal.reading(data) != first
    monkeypatch.delenv(KEY)
    with pytest.raises(PlatformError, match="need a key"):
        personal.reading(data)
    assert personal.reading(DataConfig(pii={"note": "mask"}))["key"] == ""


@pytest.fixture
def ingested(
    toy: Any, toy_config: Callable[..., str], toy_frame: Any, toy_csv: Any, tmp_path: Path
) -> Callable[..., Any]:
    """Ingest rows of the toy task whose notes are given, with ``data.pii``; gives the manifest."""

    def run(notes: list[str], **said: str) -> dict[str, Any]:
        file = toy_csv(tmp_path / "in" / "toy.csv", toy_frame(len(notes)).assign(note=notes))
        out = tmp_path / "home" / "manifest.json"
        config = toy_config(data={"pii": said})
        step.ingest("toy", config, str(file), str(tmp_path / "home" / "data"), str(out))
        manifest: dict[str, Any] = json.loads(out.read_text())
        return manifest

    return run


def test_ingest_keeps_nothing_of_it(ingested: Callable[..., Any], tmp_path: Path) -> None:
    manifest = ingested(["ok", "write canary@leak.org"], note="label")
    rows = parquet.read_table(Path(manifest["path"]) / "part-00000.parquet")
    assert rows.column("note").to_pylist() == ["ok", "write [EMAIL]"]
    assert manifest["personal"] == {"note": {"operator": "label", "found": {"email": 1}}}
    assert left(tmp_path / "home", ["canary"]) == {}


def test_a_refused_source_leaves_nothing(ingested: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="column 'note' holds personal data"):
        ingested(["ok", "write canary@leak.org"])
    assert left(tmp_path / "home", ["canary"]) == {}
    assert set(left(tmp_path / "in", ["canary"])) == {"canary"}
    assert ingested(["ok", "write canary@leak.org"], note="keep")["personal"]["note"]["found"] == {"email": 1}


def test_another_declaration_is_another_version(ingested: Callable[..., Any]) -> None:
    notes = ["ok", "write canary@leak.org"]
    assert ingested(notes, note="label")["version"] != ingested(notes, note="mask")["version"]
    assert ingested(notes, note="label")["version"] == ingested(notes, note="label")["version"]


def test_a_look_at_a_file_shows_kinds_and_not_values(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,contact\n1,a@b.org\n2,13812345678\n3,none\n")
    found = inspect(str(file), None, {})
    (contact,) = [column for column in found.columns if column.name == "contact"]
    assert "holds personal data: email in 1 row, phone in 1 row" in contact.remarks
    assert "a@b.org" not in str(found.columns)


def test_a_batch_is_treated_as_its_model_was_learned_from(tmp_path: Path) -> None:
    inputs = [{"name": "note", "dtype": "string"}]
    signature = Signature.model_validate({"inputs": inputs, "classes": ["a", "b"]})
    layout = {"pii": {"note": "label", "name": "drop:whole", "absent": "mask"}, "columns": {"note": "text"}}
    bundle: Any = SimpleNamespace(document=SimpleNamespace(layout=layout, signature=signature))
    file = tmp_path / "batch.csv"
    file.write_text("text,name,other\ntel 13812345678,Zhang,a@b.org\n")
    ((_, table),) = tables(str(file), bundle, {})
    assert table.drop([ROW]).to_pylist() == [{"text": "tel [PHONE]", "name": "", "other": "a@b.org"}]


def test_a_tagger_takes_names_out_and_another_one_is_another_version(tmp_path: Path) -> None:
    first, second = (
        str(name_tagger(tmp_path / name, **{name: "PER"}).path) for name in ("anna", "carl")
    )  # fmt: skip
    data = DataConfig(pii={"note": "label", "who": "hash:whole"}, tagger=first)
    made = PersonalData(data).apply(chunk(note=["Anna and Carl", "Anna"], who=["Anna", "Anna"])).table
    assert made.column("note").to_pylist() == ["[NAME] and Carl", "[NAME]"]
    assert made.column("who")[0].as_py().startswith("[value#")
    told = [reading(replace(data, tagger=where)) for where in (first, second, "")]
    assert len({json.dumps(one) for one in told}) == 3
    assert reading(DataConfig(tagger=first)) == reading(DataConfig())  # nothing is treated by it
