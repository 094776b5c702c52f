"""Tasks and recipes of other packages: found by name, trained, carded and versioned as ours are."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.bundle import read_bundle
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.registry import Registry
from pipelines.code_version import code_version
from pipelines.steps.register import register
from pipelines.tasks import find_recipe, get_task, recipe_config, recipes_of, task_names
from tests.chain import Chain
from tests.packages import install, install_visits

TASK = """
from pathlib import Path
from pipelines.recipes.text.task import TextClassification
from pipelines.task import Column
from other_desk.limits import RECIPES

class Desk(TextClassification):
    name, title, label = "desk", "Who answers this letter?", "team"
    columns = (Column(name="id", dtype="string"), Column(name="letter", dtype="string"),
               Column(name="team", dtype="string"))
    fields = {"letter": "as it came"}
    recipes = RECIPES

TASK = Desk()
"""
LIMITS = """
from pipelines.recipes.text.standard import text_recipes
from pipelines.task import GateConfig, Threshold

RECIPES = text_recipes(GateConfig(primary="accuracy", thresholds=(Threshold(metric="accuracy", minimum=0.9),)))
"""
BAYES = '''
from dataclasses import field
from pydantic.dataclasses import dataclass
from pipelines.recipes.text.base import TextRecipe
from pipelines.task import STRICT

@dataclass(frozen=True, kw_only=True, config=STRICT)
class BayesModel:
    smoothing: float = 1.0

@dataclass(frozen=True, kw_only=True, config=STRICT)
class Bayes(TextRecipe):
    """Naive Bayes of words."""

    model: BayesModel = field(default_factory=BayesModel)

    def learn(self, examples, out, checkpoints, progress):
        import numpy as np
        from pipelines.recipes.text.examples import joined_texts, label_numbers, write_spec
        from pipelines.training.ngrams import NgramVocabulary
        from pipelines.training.onnx_text import write_linear_graph
        from pipelines.training.tokens import PAD_ID, UNKNOWN_ID, tokenise, train_tokenizer

        texts = joined_texts(examples.train, examples.fields, self.text.max_characters)
        tokenizer = train_tokenizer(
            texts, unit="word", vocabulary=self.text.vocabulary, min_frequency=1, boundaries=True)
        ids = tokenise(tokenizer, texts, self.text.max_tokens)
        words = NgramVocabulary.learn(ids, longest=1, min_documents=1, max_terms=1000, unused=(PAD_ID, UNKNOWN_ID))
        counts, labels = words.count(ids), label_numbers(examples.train, examples.classes)
        of_class = [counts[labels == at].sum(axis=0) + self.model.smoothing for at in range(len(examples.classes))]
        share = np.stack([np.log(np.asarray(row).ravel() / row.sum()) for row in of_class], axis=1)
        tokenizer.save(str(out / "tokenizer.json"), pretty=False)
        np.save(out / "terms.npy", words.terms, allow_pickle=False)
        write_linear_graph(out / "model.onnx", terms=words.terms, idf=np.ones(len(share)), weights=share,
                           bias=np.log(np.bincount(labels) / len(labels)))
        write_spec(out, self.text, explain="terms", per_row=6 * len(share), per_token=2)
        return {"history": [], "parameters": {"terms": len(share)}, "device": "cpu"}

def recipe(task):
    if task.modality == "text":
        return Bayes(recipe="bayes", gate=task.recipes[task.default_recipe].gate)
'''
COMMON = ["my", "order", "is", "here", "please", "today"]
WORDS = {"billing": "invoice payment refund charge", "parcels": "courier late address van"}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One package with the task desk, and one with the recipe bayes for every text task."""
    folder = tmp_path / "site-packages"
    files = {"__init__.py": "", "task.py": TASK, "limits.py": LIMITS, "README.md": "# Limits\n\nOnly **letters**.\n"}
    placed = {f"other_desk/{name}": text for name, text in files.items()}
    install(folder, "other_desk", placed, {"tasks": "desk = other_desk.task:TASK"})
    install(folder, "other_bayes", {"other_bayes.py": BAYES}, {"recipes": "bayes = other_bayes:recipe"})
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.startswith("other_")]:
        monkeypatch.delitem(sys.modules, name)  # of another test's folder
    code_version.cache_clear()
    yield folder
    code_version.cache_clear()


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    file = tmp_path / "letters.csv"
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "letter", "team"])
        for number in range(160):
            team = sorted(WORDS)[number % 2]
            words = [
                *random.choice(WORDS[team].split(), 4),
                *random.choice(COMMON, 5),
            ]
            writer.writerow([number, f"{' '.join(words)} {number}", team])
    return file


def test_they_are_known_by_name_beside_ours(packages: Path) -> None:
    assert {"desk", "fraud", "news"} <= set(task_names())
    assert set(recipes_of(get_task("desk"))) == {*get_task("desk").recipes, "bayes"}
    assert find_recipe(get_task("news"), "bayes") is not None
    assert find_recipe(get_task("fraud"), "bayes") is None
    settings: Any = recipe_config(get_task("news"), "bayes", {"model.smoothing": 0.5})
    assert settings.model.smoothing == 0.5
    with pytest.raises(PlatformError, match="unknown recipe 'forest'") as caught:
        recipe_config(get_task("news"), "forest")
    assert "bayes" in str(caught.value.detail)


def test_a_file_becomes_a_bundle_with_its_card(
    packages: Path, letters: Path, tmp_path: Path, registry_tables: Path
) -> None:
    chain = Chain(task="desk", recipe="bayes", home=tmp_path / "home", source=str(letters))
    shutil.copy(registry_tables, chain.home)
    chain.dataset()
    chain.candidate()
    ends = chain.endpoints.model_dump_json()
    chain.call("gate", chain.path("dataset"), chain.path("candidate"), ends, chain.path("gate.json"))
    candidate, gate, out = (str(chain.path(name)) for name in ("candidate", "gate.json", "registered.json"))
    register("desk", chain.config, candidate, gate, ends, "by a test", True, out)
    bundle = Registry(chain.endpoints).fetch("desk")
    assert bundle.document.recipe == "bayes"
    assert bundle.document.metrics["accuracy"] >= 0.9
    answer = load_engine(read_bundle(bundle.path)).predict({"letter": np.array(["the courier is late"], object)})
    classes = sorted(WORDS)
    assert classes[int(answer[0].argmax())] == "parcels"
    assert "Only <strong>letters</strong>." in (bundle.path / "card.html").read_text()


@pytest.mark.parametrize(
    ("file", "of_desk", "of_news"),
    [
        ("other_desk/task.py", True, False),
        ("other_desk/limits.py", True, False),
        ("other_desk/words.csv", True, False),
        ("other_desk/README.md", False, False),
        ("other_bayes.py", True, True),
    ],
)
def test_code_versions_follow_them(packages: Path, file: str, of_desk: bool, of_news: bool) -> None:
    def versions() -> list[str]:
        code_version.cache_clear()
        return [code_version(name) for name in ("desk", "news", "fraud")]

    before = versions()
    with (packages / file).open("a") as stream:
        stream.write("\n# 2\n")
    changed = [new != old for new, old in zip(versions(), before, strict=True)]
    assert changed == [of_desk, of_news, False]


def test_the_code_version_of_a_task_follows_its_views_and_their_functions(packages: Path) -> None:
    install_visits(packages)
    code_version.cache_clear()
    before = code_version("visits")
    for name in ("views", "ratio"):
        with (packages / "toy_visits" / f"{name}.py").open("a") as stream:
            stream.write("\n# 2\n")
        code_version.cache_clear()
        now = code_version("visits")
        assert now != before, name
        before = now


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("recipes", "def made(task):\n    return 3\n", "recipe 'odd' of package odd_for_test is none"),
        ("recipes", "import nothing_here\n", "package odd_for_test cannot be loaded"),
        ("tasks", "class made:\n    name = 'other'\n", "task 'odd' calls itself 'other'"),
    ],
)
def test_a_faulty_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: str, said: str
) -> None:
    install(tmp_path, "odd_for_test", {"odd_for_test.py": code}, {kind: "odd = odd_for_test:made"})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_for_test", raising=False)
    with pytest.raises(PlatformError, match=said) as caught:
        recipes_of(get_task("news")) if kind == "recipes" else get_task("odd")
    assert caught.value.code in ("bad_plugin", "bad_task")
