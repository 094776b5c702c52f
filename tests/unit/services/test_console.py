from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from services.console import rendering, words
from services.console.access import local_path
from services.console.documents import Alert, Answer, Model
from tests.console_source import PAGES, MadeSource, open_console


class Tags(HTMLParser):
    """The shape of a page: its tags with the names of their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(f"{tag} {sorted(name for name, _ in attrs)}")


def shape(page: str) -> list[str]:
    return [tag for tag in Tags(page).tags if not tag.startswith("option")]


@pytest.mark.parametrize("language", words.LANGUAGES)
@pytest.mark.parametrize("path", PAGES)
def test_every_page_answers_in_both_languages(path, language):
    page = open_console().get(path, headers={"accept-language": language})
    assert page.status_code == (404 if path == "/nowhere" else 200)
    assert f'<html lang="{"zh-Hans" if language == "zh" else "en"}"' in page.text
    assert page.text.count("<h1") == 1


FRAGMENTS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=a()>',
    "'</title>&",
    "{{7*7}}",
    "</textarea><b>",
    "{t}",
    "中",
]
NAMED = re.compile(r"/(fraud-20261128-090000-aa11|fraud|news-1)(?=$|/|\?)")


def pages_with(word: str) -> dict[str, tuple[int, list[str], str]]:
    """Status, shape and text of each page when `word` is part of every name."""
    console = open_console(MadeSource(word))
    found = {}
    for path in PAGES:
        answer = console.get(NAMED.sub(lambda name: f"/{name[1]}{quote(word, safe='')}", path))
        found[path] = answer.status_code, shape(answer.text), answer.text
    return found


plain_pages = functools.cache(lambda: pages_with("-"))


@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4).map("".join))
@settings(max_examples=6, deadline=None)
def test_script_in_every_name_of_every_document_stays_text(markup):
    slash = "/" in markup  # no name with a slash has a page
    for path, (status, tags, text) in pages_with(markup).items():
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "49" not in re.findall(r"fraud(\d+)", text)
        if not (slash and NAMED.search(path)):
            assert (status, tags) == plain_pages()[path][:2], path


def test_what_an_endpoint_says_stays_text():
    source = MadeSource("<script>x</script>")
    source.answer = Answer(status=503, headline="<script>x</script>", detail="<i>", fix="<b>", errors=[("<u>", "<s>")])
    page = open_console(source).post("/models/fraud%3Cscript%3Ex%3C/script%3E/try", data={})
    assert "<script>x" not in page.text


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_words_of_documents_have_a_form_in_each_language(language):
    assert all(words.state_words(language)[state] for state in words.STATES)


TEMPLATES = sorted((rendering.HERE / "templates").glob("*.html"))
LITERAL = re.compile(r"""\bt\(\s*(?:"([^"]+)"|'([^']+)')""")


def test_the_catalogue_has_all_words_of_the_pages_and_no_other():
    texts = "".join(file.read_text("utf-8") for file in TEMPLATES)
    asked = {double or single for double, single in LITERAL.findall(texts)}
    # texts that reach `t` by a variable
    asked |= set(re.findall(r'\("\w+", "/\w*", "([^"]+)"\)', texts)) | set(re.findall(r'unknown\("([^"]+)"\)', texts))
    code = "".join(file.read_text("utf-8") for file in [*rendering.HERE.glob("*.py")] if file.name != "words.py")
    for key in words.CHINESE:
        assert key in asked or f'"{key}"' in code or key.partition(" ")[0] == "colours" or key in FROM_SOURCES, key
    assert not {key for key in asked if key.strip() != "colours"} - set(words.CHINESE)


FROM_SOURCES = {
    "card.html",
    "data.html",
    "not measured",
    "Nobody watches this model yet; shown is the training data.",
    "No window was judged yet; shown is the training data.",
    "The monitor's report cannot be read; shown is the training data.",
}


def test_chinese_is_chinese_and_has_the_same_values_to_fill_in():
    for english, chinese in words.CHINESE.items():
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)), english
        has_letters = re.sub(r"\{\w+\}", "", english).strip(" /")
        assert re.search(r"[\u4e00-\u9fff]", chinese) or not has_letters or english == "In the other language"


def test_no_template_has_a_word_that_is_in_no_catalogue():
    for file in TEMPLATES:
        text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", file.read_text("utf-8"), flags=re.DOTALL)
        text = re.sub(r"<(code|script)\b.*?</\1>", "", text, flags=re.DOTALL)
        text = re.sub(r'\baria-\w+="[^"]*"', "", text)
        bare = set(re.findall(r"[A-Za-z]{2,}", re.sub(r"<[^>]*>", " ", text)))
        assert bare <= {"Fairlead", "PSI", "JS", "doctype"}, (file.name, bare)
        for attribute in re.findall(r'(?:title|aria-label|placeholder|alt)="([^"]+)"', text):
            assert not re.search(r"[A-Za-z]{2,}", attribute), (file.name, attribute)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("", "en"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en;q=0.2, zh;q=0.9", "zh"), ("fr,de", "en"), ("zh;q=x", "en")],
)
def test_the_language_is_the_one_that_the_browser_likes_best(accepted, language):
    assert words.chosen_language(accepted) == language


def test_language_and_colours_are_kept_in_cookies():
    console = open_console()
    console.post("/preferences", data={"lang": "zh", "next": "/runs"})
    page = console.post("/preferences", data={"theme": "dark", "next": "/runs"})
    assert page.url.path == "/runs"
    assert 'data-theme="dark"' in page.text
    assert "运行" in page.text


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\nb", ""])
def test_a_form_never_goes_on_to_another_site(path):
    assert local_path(path) == "/"


def test_answers_tell_browsers_to_be_strict():
    answer = open_console().get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    inline = re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|https?://", answer.text)
    assert not inline


def test_a_card_may_run_nothing():
    answer = open_console().get("/models/fraud/versions/3/card.html")
    assert answer.status_code == 200
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "script-src" not in answer.headers["content-security-policy"]
    assert open_console().get("/models/fraud/versions/3/golden.jsonl").status_code == 404


def test_what_cannot_be_read_is_a_page_with_its_cure():
    class Broken(MadeSource):
        def models(self) -> Sequence[Model]:
            raise PlatformError("the registry cannot be read", detail="it is damaged", fix="put its backup there")

        def alerts(self) -> Sequence[Alert] | None:
            raise RuntimeError("secret")

    console = open_console(Broken())
    page = console.get("/")
    assert page.status_code == 503
    assert "put its backup there" in page.text
    broken = console.get("/alerts")
    assert broken.status_code == 500
    assert "secret" not in broken.text
    assert "content-security-policy" in broken.headers


def test_what_is_not_measured_is_said_and_not_made_up():
    class Silent(MadeSource):
        def models(self) -> Sequence[Model]:
            return [Model(name="fraud")]

        def alerts(self) -> Sequence[Alert] | None:
            return None

    console = open_console(Silent())
    page = console.get("/").text
    assert page.count("not measured") >= 6
    assert "not watched yet" in page
    assert "--prometheus" in console.get("/alerts").text


def test_a_hundred_models_are_a_hundred_lines():
    assert open_console(MadeSource(models=100)).get("/").text.count('<th scope="row">') == 100


def test_the_form_sends_what_its_fields_mean():
    source = MadeSource()
    page = open_console(source).post(
        "/models/fraud/try",
        data={
            "by": "features", "explain": "on", "f.amount": "12.5", "f.items": "3", "f.is_night": "true",
            "f.country": "AT", "f.note": "", "f.customer_mean_7d": "", "f.other": "ignored",
        },
    )  # fmt: skip
    assert page.status_code == 200
    instance = {
        "amount": 12.5, "items": 3, "is_night": True, "country": "AT", "note": "", "customer_mean_7d": None,
    }  # fmt: skip
    assert source.asked == [("fraud", instance, True)]
    assert "unknown_category:country" in page.text


def test_the_form_by_entity_has_keys_and_no_features():
    source = MadeSource()
    open_console(source).post("/models/fraud/try", data={"f.customer_id": "17", "f.amount": "1", "f.event_time": ""})
    sent = source.asked[0][1]
    assert sent["customer_id"] == 17
    assert "customer_mean_7d" not in sent
    assert "event_time" not in sent


def test_what_is_no_number_is_said_beside_its_field_and_not_sent():
    source = MadeSource()
    form = {"f.amount": "a lot", "f.items": "2.5"}
    page = open_console(source).post("/models/fraud/try", data=form)
    assert page.status_code == 422
    assert "Write a number." in page.text
    assert "Write a whole number." in page.text
    assert 'value="a lot"' in page.text
    assert not source.asked


def test_what_the_endpoint_refuses_is_said_beside_its_field():
    source = MadeSource()
    source.answer = Answer(
        status=422, headline="refused", errors=[("instances[0].amount", "must be at most 10000"), ("explain", "odd")]
    )
    page = open_console(source).post("/models/fraud/try", data={"f.amount": "99999"})
    assert page.status_code == 422
    assert re.search(r'id="f2h"[^>]*><span class="error">must be at most 10000', page.text)
    assert "<code>explain</code> odd" in page.text


def test_an_endpoint_that_is_away_is_a_page_with_its_cure():
    source = MadeSource()
    source.answer = Answer(status=0, headline="http://127.0.0.1:3001: refused", fix="fairlead serve fraud")
    page = open_console(source).post("/models/fraud/try", data={})
    assert page.status_code == 502
    assert "fairlead serve fraud" in page.text


def test_a_model_without_its_bundle_says_so_and_cannot_be_tried():
    console = open_console()
    page = console.get("/models/broken").text
    assert "bundle.json is missing" in page
    assert "Try it" not in page
    assert console.get("/models/broken/try").status_code == 404


def test_a_form_that_is_too_large_is_not_read():
    answer = open_console().post("/models/fraud/try", content=b"", headers={"content-length": str(17 << 20)})
    assert answer.status_code == 413


def test_a_key_of_the_readers_own_goes_with_the_request_and_into_no_page():
    source = MadeSource()
    assert 'name="key"' not in open_console(source).get("/models/fraud/try").text
    source.key_known = False
    console = open_console(source)
    assert 'type="password"' in console.get("/models/fraud/try").text
    page = console.post("/models/fraud/try", data={"by": "entity", "key": " my-own-key ", "f.customer_id": "7"})
    assert source.keys == ["my-own-key"]
    assert "my-own-key" not in page.text
    source.key_known, source.answer = True, Answer(status=401, headline="an API key is needed")
    refused = console.post("/models/fraud/try", data={"by": "entity"})
    assert (refused.status_code, 'name="key"' in refused.text) == (422, True)
