"""``fairlead evaluate`` and ``fairlead prompts``, over a service whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from contracts.prompts import PromptDocument, Prompts, fill, parse_prompt
from tests.chat_stand_in import StandIn, chat_stand_in, last
from tests.problem_bundles import tiny_chat
from tests.unit.deploy.conftest import Said

PROMPT = {
    "name": "capital",
    "template": 'Which city is the capital of {country}? {"as": "text"}',
    "variables": ["country"],
    "model": "",
    "metrics": ["exact_match"],
    "minimum": 0.5,
    "examples": [
        {"variables": {"country": "France"}, "answer": "Paris"},
        {"variables": {"country": "Italy"}, "answer": "Rome"},
    ],
}
SUITE = {
    "suite": "cities",
    "tasks": [
        {"name": "capitals", "metrics": ["exact_match"], "items": [{"prompt": "France?", "answer": "Paris"}] * 1}
    ],
    "judge": {"criteria": "right", "labelled": [{"prompt": "x", "first": "a", "second": "b", "human": "first"}]},
}


@pytest.fixture
def service() -> Iterator[StandIn]:
    def say(asked: dict[str, Any]) -> str:
        if "<answer_A>" in last(asked):
            return '{"winner": "A"}'
        return "Rome" if "Italy" in last(asked) else "Paris"

    with chat_stand_in(say) as found:
        yield found


def written(folder: Path, document: dict[str, Any], **changes: Any) -> str:
    file = folder / f"{document.get('name', 'suite')}.yaml"
    file.write_text(yaml.safe_dump({**document, **changes}))
    return str(file)


@pytest.fixture
def prompts(endpoints: Endpoints) -> Prompts:
    return Prompts(endpoints)


def test_a_service_is_evaluated_and_what_it_said_is_kept(
    fairlead: Callable[..., Said], service: StandIn, tmp_path: Path, home: Path
) -> None:
    asked = ["evaluate", service.url, "--suite", written(tmp_path, SUITE), "--no-track"]
    said = fairlead(*asked, "--judge", f"{service.url}#other", "--json")
    assert said.code == 0, said.err
    (model,) = said.json["models"]
    assert (model["metrics"]["score"], said.json["suite"]["items"]) == (1, 1)
    assert said.json["judge"]["comparisons"][0]["against"] == "reference"
    assert said.json["judge"]["human"]["position_bias"] == 0.5
    assert service.asked[-1]["model"] == "other"
    kept = Path(said.json["folder"])
    assert kept.parent == home / "evaluations"
    assert json.loads((kept / "evaluation.json").read_text())["rows"][0]["answers"][0]["text"] == "Paris"
    assert "France?" in (kept / "report.html").read_text()
    number = len(service.asked)
    table = fairlead(*asked)
    assert (table.code, len(service.asked)) == (0, number)
    assert "capitals.exact_match" in table.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "none"], "no suite 'none'"),
        (["--judge", "http://127.0.0.1:9"], "says nothing to a judge"),
        (["{url}"], "a model is named twice"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    fairlead: Callable[..., Said], service: StandIn, tmp_path: Path, arguments: list[str], said: str
) -> None:
    plain = written(tmp_path, {name: value for name, value in SUITE.items() if name != "judge"})
    given = [one.format(url=service.url) for one in arguments]
    found = fairlead("evaluate", service.url, "--suite", plain, *given)
    assert found.code == 1
    assert said in found.err
    assert service.asked == []


def test_a_prompt_is_tested_promoted_and_rolled_back(
    fairlead: Callable[..., Said], service: StandIn, tmp_path: Path, prompts: Prompts
) -> None:
    first = fairlead("prompts", "test", written(tmp_path, PROMPT, model=service.url), "--json")
    assert first.code == 0, first.err
    assert (first.json["passed"], first.json["value"]) == (True, 1)
    assert 'Which city is the capital of France? {"as": "text"}' in map(last, service.asked)
    ref = f"capital:{first.json['version']}"
    assert fairlead("prompts", "promote", ref).code == 0
    changed = written(tmp_path, PROMPT, model=service.url, template="Capital of {country}, in one word?")
    second = fairlead("prompts", "test", changed, "--json").json
    assert second["against"] == {
        "version": first.json["version"], "difference": 0, "interval": [0, 0], "shown": "open"
    }  # fmt: skip
    assert fairlead("prompts", "promote", f"capital:{second['version']}").code == 0
    assert prompts.resolve("capital").version == second["version"]
    assert fairlead("prompts", "promote", ref).code == 0
    assert prompts.resolve("capital@champion").version == first.json["version"]
    listed = fairlead("prompts", "--json").json
    assert [bool(one["champion"]) for one in listed] == [True, False]
    assert "Which city" in fairlead("prompts", "show", "capital").out
    assert "passed" in fairlead("prompts").out
    assert "promote" in fairlead("audit", "--json").out


def test_a_prompt_that_did_not_pass_needs_a_reason(
    fairlead: Callable[..., Said], service: StandIn, tmp_path: Path, prompts: Prompts
) -> None:
    examples = [{"variables": {"country": name}, "answer": "Rome"} for name in ("France", "Spain", "Italy")]
    said = fairlead("prompts", "test", written(tmp_path, PROMPT, model=service.url, examples=examples), "--json").json
    assert (said["passed"], said["value"]) == (False, pytest.approx(1 / 3))
    ref = f"capital:{said['version']}"
    refused = fairlead("prompts", "promote", ref)
    assert (refused.code, "at least 0.5" in refused.err) == (3, True)
    with pytest.raises(PlatformError, match="no prompt 'capital'"):
        prompts.resolve("capital")
    assert fairlead("prompts", "promote", ref, "--override", "by hand").code == 0
    assert prompts.resolve("capital").version == said["version"]


def test_a_version_is_its_content(prompts: Prompts, endpoints: Endpoints) -> None:
    document = parse_prompt({**PROMPT, "model": "chat"}, "here")
    version = prompts.add(document)
    assert prompts.add(document) == version
    (one,) = prompts.versions("capital")
    assert (one.version, one.document, one.passed) == (version, document, False)
    file = endpoints.path("artifacts") / "prompts" / "capital" / version / "prompt.json"
    file.write_text(file.read_text().replace("Which city", "What city"))
    with pytest.raises(PlatformError, match="was changed"):
        prompts.versions("capital")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variables": []}, "'country' is not in variables"),
        ({"variables": ["country", "year"]}, "'year' is not in the template"),
        ({"name": "a/b"}, "other signs"),
        ({"examples": []}, "examples"),
        ({"minimum": 2}, "minimum"),
        ({"modell": "x"}, "modell"),
    ],
)
def test_what_is_wrong_in_a_prompt_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PlatformError) as caught:
        parse_prompt({**PROMPT, **changes}, "here")
    assert (caught.value.code, said in caught.value.detail) == ("bad_prompt", True)


def test_values_are_text_whatever_braces_they_have() -> None:
    assert fill("{a} and {b} {1}", {"a": "{b}", "b": "x"}) == "{b} and x {1}"
    with pytest.raises(PlatformError, match="has no value"):
        fill("{a}", {})
    made = PromptDocument.model_validate({**PROMPT, "model": "chat", "system": "Be brief."})
    assert [one["role"] for one in made.messages({"country": "x"})] == ["system", "user"]


@pytest.mark.integration
def test_a_bundle_is_served_while_it_is_asked(fairlead: Callable[..., Said], tmp_path: Path) -> None:
    bundle = tiny_chat(tmp_path)
    items = [{"prompt": "say w", "contains": ["xyz"]}, {"prompt": "x" * 600, "contains": ["y"]}]
    suite = {
        "suite": "letters",
        "options": {"max_tokens": 8},
        "tasks": [{"name": "next", "metrics": ["contains"], "items": items}],
    }
    said = fairlead("evaluate", str(bundle.path), "--suite", written(tmp_path, suite), "--json")
    assert said.code == 0, said.err
    (model,) = said.json["models"]
    first, second = (row["answers"][0] for row in said.json["rows"])
    assert (first["text"], second["error"], model["metrics"]["score"]) == ("xyz", "context_length_exceeded", 0.5)
    assert model["name"] == f"tiny:{bundle.digest[:12]}"
    assert said.json["tracked"][0]["model"] == model["name"]
