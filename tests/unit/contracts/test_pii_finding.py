"""Personal data is found by form, check digits and words nearby, however it is written; other numbers stay."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from contracts.pii import checks, tagged
from contracts.pii.finding import KINDS, NAMES, find
from tests.pii_samples import WIDE, chinese_id, ordinary, samples


def told(text: str, **how: str) -> list[tuple[str, str]]:
    return [(span.kind.name, text[span.start : span.end]) for span in find(text, **how)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("身份证11010519491231002X，请核对", "cn_id", "11010519491231002X"),
        ("证件110105 19491231 002x", "cn_id", "110105 19491231 002x"),
        ("1 1 0 1 0 5 1 9 4 9 1 2 3 1 0 0 2 X", "cn_id", "1 1 0 1 0 5 1 9 4 9 1 2 3 1 0 0 2 X"),
        ("老身份证号110105491231002", "cn_id", "110105491231002"),
        ("手机１３８１２３４５６７８。", "phone", "１３８１２３４５６７８"),
        ("tel13812345678", "phone", "13812345678"),
        ("打+86 138-1234-5678找我", "phone", "+86 138-1234-5678"),
        ("座机(021) 6234 5678转801", "phone", "(021) 6234 5678转801"),
        ("call +1-984-182-0190 now", "phone", "+1-984-182-0190"),
        ("(579)888-3058 fax", "phone", "(579)888-3058"),
        ("reach me on 03.93.92.16.85", "phone", "03.93.92.16.85"),
        ("卡号6222 0212 3456 7890 128", "card", "6222 0212 3456 7890 128"),
        ("pay 4111 1111 1111 1111 123 times", "card", "4111 1111 1111 1111"),
        ("amex 3782-822463-10005", "card", "3782-822463-10005"),
        ("护照E12345678", "passport", "E12345678"),
        ("passport no. AB1234567", "passport", "AB1234567"),
        ("车牌京A·12345", "plate", "京A·12345"),
        ("粤BD12345已入场", "plate", "粤BD12345"),
        ("代码91350100M000100Y43", "cn_credit_code", "91350100M000100Y43"),
        ("我住在北京市海淀区中关村大街27号3号楼502室。", "address", "北京市海淀区中关村大街27号3号楼502室"),
        ("at 1668 Glyn Street, Apt. 5", "address", "1668 Glyn Street, Apt. 5"),
        ("mail a.b+c@sub.example.co.uk!", "email", "a.b+c@sub.example.co.uk"),
        ("ａ＠ｂ．ｃｏｍ", "email", "ａ＠ｂ．ｃｏｍ"),
        ("from 41.173.96.26:80", "ip", "41.173.96.26"),
        ("at 6e40:4041:c617:e898:c11:40d2:c669:2eb4", "ip", "6e40:4041:c617:e898:c11:40d2:c669:2eb4"),
        ("my iban is gb82 west 1234 5698 7654 32 ok", "iban", "gb82 west 1234 5698 7654 32"),
        ("ssn 853-37-1694", "us_ssn", "853-37-1694"),
        ("key ghp_abcdefghijklmnopqrstuvwxyz0123456789", "secret", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
        ("password: hunter2xyz", "secret", "hunter2xyz"),
        ("密码是Abc12345", "secret", "Abc12345"),
        ("1️⃣3️⃣8️⃣1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣7️⃣8️⃣", "phone", "1️⃣3️⃣8️⃣1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣7️⃣8️⃣"),
        ("姓名：王小明，", "name", "王小明"),
        ("我叫欧阳娜今年三十", "name", "欧阳娜"),
        ("请高先生来", "name", "高"),
        ("Dear Anna, ", "name", "Anna"),
        ("Dr. Šárka van der Berg said", "name", "Šárka van der Berg"),
        ("138\u200b1234\u200b5678", "phone", "138\u200b1234\u200b5678"),
        ("١٣٨١٢٣٤٥٦٧٨", "phone", "١٣٨١٢٣٤٥٦٧٨"),
    ],
)
def test_it_is_found_as_people_write_it(text: str, kind: str, value: str) -> None:
    assert told(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "110105194912310021",  # wrong check sign
        "110105194913310022",  # no such month
        "4111 1111 1111 1112",
        "91350100M000100Y44",
        "GB83WEST12345698765432",
        "E12345678",  # a passport only where words say so
        "2018-04-01 00:00:31",
        "1522540831",
        "3.13812345678",
        "version 1.2.3",
        "Dear Customer, Mrs. or Mr.",
        "一位医生和女士",
        "26420 6988 28644 189 792 11355 2315 5172 1243 8283 5593 7683 0323",  # a list of numbers
        "000-12-3456",
        "0.0.0.0",
        "2001-2024",
        "[PHONE] [email#0123456789abcdef] password: [SECRET]",
        "",
        " \n\t",
    ],
)
def test_what_proves_nothing_is_left_alone(text: str) -> None:
    assert told(text) == []


def test_the_name_of_a_column_is_a_word_nearby() -> None:
    assert told("E12345678", hint="护照号") == told("E12345678", hint="passport_no") == [("passport", "E12345678")]


def test_mixed_languages_and_neighbours_keep_their_borders() -> None:
    text = "客户wang@x.cn卡6222021234567890128 13812345678 and 13912345678、身份证 11010519491231002X京A12345"
    assert [kind for kind, _ in told(text)] == ["email", "card", "phone", "phone", "cn_id", "plate"]


def test_recall_on_made_up_chinese_sentences() -> None:
    """The goal of structured types is 0.95; what is missed is told with its text."""
    missed = [one for one in samples(5, 150) if (one.kind, one.text[one.start : one.end]) not in told(one.text)]
    assert len(missed) <= 0.02 * 150 * 7, [one.text for one in missed[:10]]


def test_ordinary_numbers_are_nobodys() -> None:
    found = [(text, told(text)) for text in ordinary(2, 1500) if told(text)]
    assert len(found) <= 3, found


def test_random_numbers_pass_as_seldom_as_said() -> None:
    rng = random.Random(4)
    counts = Counter(kind for _ in range(4000) for kind, _ in told(f"{rng.randrange(10**15, 10**16)}"))
    assert counts["card"] < 0.1 * 4000
    assert not counts["cn_id"]


@given(st.integers(0, 10**9), st.sampled_from(["", " ", "-"]), st.booleans())
def test_a_chinese_id_is_one_value_however_it_is_written(seed: int, between: str, wide: bool) -> None:
    number = chinese_id(random.Random(seed))
    text = between.join([number[:6], number[6:14], number[14:]])
    (span,) = find(text.translate(WIDE) if wide else text)
    assert (span.kind.name, span.value) == ("cn_id", number)
    wrong = number[:17] + ("0" if number[17] != "0" else "1")
    assert "cn_id" not in [kind for kind, _ in told(wrong)]


@settings(max_examples=150)
@given(st.text(st.sampled_from("0123456789 -.()+@:[]#!XxGB京A中国路号省市区住在手机aeE\u200b１８😀\n")))
def test_any_text_gives_spans_in_order_within_it(text: str) -> None:
    spans, at = find(text), 0
    for span in spans:
        assert at <= span.start < span.end <= len(text)
        at = span.end


@pytest.mark.parametrize("unit", ["1 ", "a.b@", "GB82 ", "在北京市海淀路", "😀1", "token=", "::1"])
def test_time_grows_with_length_only(unit: str) -> None:
    """A hundred thousand signs made to be slow take as long per sign as ten thousand: within ten times of it."""

    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        start = time.perf_counter()
        find(text)
        return time.perf_counter() - start

    assert seconds(60_000) < 100 * max(seconds(6_000), 0.002)


def test_a_kind_that_there_is_not() -> None:
    with pytest.raises(PlatformError, match="unknown kind of personal data 'fone'") as caught:
        find("x", kinds=["fone"])
    assert "phone" in caught.value.detail


def test_every_kind_has_a_name_in_tokens() -> None:
    assert set(NAMES) == {kind.name for kind in (*KINDS, *tagged.KINDS)}
    assert all(name.replace("_", "").isalpha() and name.islower() for name in NAMES)


def test_check_digits_by_their_standards() -> None:
    assert checks.chinese_id("11010519491231002X")  # the example of GB 11643
    assert checks.credit_code("91350100M000100Y43")  # the example of GB 32100
    assert checks.iban("GB82WEST12345698765432")  # the example of ISO 13616
    assert checks.luhn("79927398713")
