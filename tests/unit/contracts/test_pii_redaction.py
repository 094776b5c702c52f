"""Operators: nothing is left, the same value is the same everywhere, and only its key brings a text back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from contracts.pii import checks
from contracts.pii.finding import find
from contracts.pii.redaction import KEY, OPERATORS, Redactor, counted, keys_of, reveal
from tests.pii_samples import Sample, samples

KEYS = keys_of("5a" * 32)
OTHER = keys_of("5b" * 32)
TEXT = "张三 手机138 1234 5678，邮箱Zhang@x.cn，卡4111-1111-1111-1111，+8613812345678"
SAMPLES = list(samples(11, 6))


def redacted(operator: str, text: str = TEXT) -> str:
    return Redactor(operator, keys=KEYS).redact(text).text


def test_operators_in_words() -> None:
    assert redacted("label") == "张三 手机[PHONE]，邮箱[EMAIL]，卡[CARD]，[PHONE]"
    assert redacted("mask") == "张三 手机*** **** ****，邮箱*****@*.**，卡****-****-****-****，+*************"
    assert redacted("drop") == "张三 手机，邮箱，卡，"


def test_a_hash_is_of_the_value_and_not_of_its_spelling() -> None:
    first, second = (part for part in redacted("hash").split("[") if part.startswith("phone#"))
    assert first[:22] == second[:22]
    assert Redactor("hash", keys=OTHER).redact(TEXT).text != redacted("hash")


def test_encrypted_text_comes_back_by_its_key_only() -> None:
    sealed = redacted("encrypt")
    assert "138" not in sealed
    assert reveal(sealed, KEYS) == TEXT
    assert redacted("encrypt") == sealed  # so that a version of data stays what it is
    with pytest.raises(PlatformError, match="cannot be decrypted") as caught:
        reveal(sealed, OTHER)
    assert caught.value.code == "wrong_pii_key"
    with pytest.raises(PlatformError):
        reveal(sealed.replace("[card!", "[phone!"), KEYS)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda one: one.kind)
def test_a_surrogate_is_another_value_of_the_same_form(sample: Sample) -> None:
    text = sample.text
    made = redacted("surrogate", text)
    value = text[sample.start : sample.end]
    assert value not in made
    assert redacted("surrogate", text) == made
    if sample.kind != "address":
        assert len(made) == len(text)
        assert sample.kind in {span.kind.name for span in find(made)}


def test_surrogates_are_in_places_that_are_nobodys() -> None:
    assert redacted("surrogate", "a@b.org").endswith("@example.com")
    assert redacted("surrogate", "10.1.2.3").startswith("198.1")
    assert redacted("surrogate", "2001:470::1").startswith("2001:db8:")
    assert checks.iban(redacted("surrogate", "GB82WEST12345698765432"))


@settings(max_examples=25)
@given(st.lists(st.sampled_from(SAMPLES), max_size=5), st.text(max_size=8), st.sampled_from(sorted(OPERATORS)))
def test_nothing_of_a_value_is_left(chosen: list[Sample], between: str, operator: str) -> None:
    text = between.join(f"{one.text}\n" for one in chosen)
    spans = find(text)
    made = Redactor(operator, keys=KEYS).redact(text).text
    for span in spans:
        assert text[span.start : span.end] not in made
    if operator in ("mask", "label", "hash", "encrypt"):
        assert redacted(operator, made) == made


def test_a_value_as_a_whole() -> None:
    assert Redactor("label").whole("Zhang San") == "[VALUE]"
    assert Redactor("hash", keys=KEYS).whole(" Zhang San ") == Redactor("hash", keys=KEYS).whole("Zhang San")
    assert Redactor("surrogate", keys=KEYS).whole("AB-12") != "AB-12"
    assert [Redactor(name, keys=KEYS).whole("") for name in OPERATORS] == [""] * len(OPERATORS)


def test_some_kinds_only() -> None:
    assert Redactor("label", kinds=["email"]).redact(TEXT).text.count("[") == 1


def test_counts() -> None:
    assert counted(find(TEXT)) == {"phone": 2, "email": 1, "card": 1}


@pytest.mark.parametrize("secret", ["", "short", "ab" * 31])
def test_a_key_that_is_none(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv(KEY, secret)
    with pytest.raises(PlatformError, match="need a key") as caught:
        Redactor("hash")
    assert caught.value.code == "no_pii_key"
    assert not secret or secret not in str(caught.value)
    Redactor("label")


def test_keys_show_nothing_of_themselves() -> None:
    assert "hashing" not in repr(KEYS)
    assert KEYS.name != OTHER.name


def test_an_operator_that_there_is_not() -> None:
    with pytest.raises(PlatformError, match="unknown operator 'blur'"):
        Redactor("blur")


def test_one_megabyte_with_half_of_it_signs_of_pictures() -> None:
    rng = random.Random(1)
    text = "".join(rng.choice("😀🎉文字 word ") for _ in range(200_000)) + "电话13812345678"
    assert redacted("label", text).endswith("电话[PHONE]")
