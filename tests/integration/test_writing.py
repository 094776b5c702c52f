"""A language model that is trained on plain texts here, and served: what llama.cpp computes is what torch trained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from contracts.bundle import Bundle, write_bundle
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.ports import free_port
from pipelines.pages.card import render_card
from tests.chain import PASSED, Chain
from tests.chat_service import served
from tests.late import Late, needs

if TYPE_CHECKING:
    import openai
else:
    openai = Late("openai")

pytestmark = pytest.mark.integration
needs("torch", "gguf", "xllamacpp")

VERSE = "床前明月光，疑是地上霜。举头望明月，低头思故乡。\nThe moon is bright — it looks like frost.\n\n"
SMALL = {
    "training.steps": 12, "training.evaluate": 2, "training.threads": 1, "training.batch_size": 2, "model.layers": 1,
    "model.width": 32, "model.heads": 2, "model.window": 64, "model.max_tokens": 12, "model.samples": 2,
    "model.vocabulary": 600, "model.safetensors": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for at in range(12):
        (folder / f"book{at}.txt").write_text(VERSE * 3 + f"Book {at}.\n" + VERSE * 3, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Chain:
    home = tmp_path_factory.mktemp("writing")
    chain = Chain(task="writing", home=home, recipe="characters", overrides=SMALL, source=str(corpus))
    chain.dataset()
    chain.candidate()
    return chain


@pytest.fixture(scope="module")
def bundle(made: Chain, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    home = tmp_path_factory.mktemp("bundle")
    fields = json.loads((made.path("candidate") / "candidate.json").read_text())
    fields |= {"gate": PASSED, "lineage": {**fields["lineage"], "created": ""}}
    shutil.copytree(made.path("candidate"), home / "b", ignore=shutil.ignore_patterns("candidate.json"))
    return write_bundle(home / "b", home / "bundles", fields)


@pytest.fixture(scope="module")
def client(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with (
        served(bundle, tmp_path_factory.mktemp("service")) as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as found,
    ):
        yield found


def test_no_document_stands_in_two_parts(made: Chain) -> None:
    import pandas as pd

    parts = {
        name: set(pd.read_parquet(made.path("dataset") / f"{name}.parquet")["id"].str.rpartition("#")[0])
        for name in ("train", "valid", "test")
    }
    assert all(parts.values())
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 12


def test_two_processes_that_share_each_batch_learn_what_one_learns(made: Chain, tmp_path: Path) -> None:
    given = {"task": "writing", "config": made.config, "dataset": str(made.path("dataset"))}
    given |= {"checkpoints": str(tmp_path / "checkpoints"), "out": str(tmp_path / "out")}
    options = [part for key, value in given.items() for part in (f"--{key}", value)]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "pipelines.steps.train_worker", *options],
            env=os.environ | group | {"RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [one.communicate(timeout=120)[0] for one in processes]
    assert [one.returncode for one in processes] == [0, 0], said
    alone, both = (json.loads((folder / "train.json").read_text()) for folder in (made.path("model"), tmp_path / "out"))
    assert len(alone["history"]) == 2
    for one, shared in zip(alone["history"], both["history"], strict=True):
        assert shared == pytest.approx(one, rel=1e-4)
    assert both["pretraining"]["bits_per_byte"] == pytest.approx(alone["pretraining"]["bits_per_byte"], rel=1e-3)


def test_the_bits_of_a_text_are_those_that_torch_measured_in_chinese_too(made: Chain, bundle: Bundle) -> None:
    told = json.loads((made.path("candidate") / "evaluation.json").read_text())["pretraining"]
    text = (VERSE * 6)[:40]
    engine: Any = load_engine(bundle)
    total, size = engine.process.log_likelihood(text)
    assert size == len(text.encode())
    assert -total / len(text) == pytest.approx(_torch_nats(made, bundle, text), abs=0.02)
    assert told["memorised_held_out"] > 0.8  # the same verse in every book
    assert 0 < told["bits_per_byte"] < 9


def _torch_nats(made: Chain, bundle: Bundle, text: str) -> float:
    """By transformers, from the file that is served."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(bundle.model_path), "gguf_file": "model.gguf"}
    model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32).eval()
    ids = [0, *AutoTokenizer.from_pretrained(**place)(text, add_special_tokens=False)["input_ids"]]
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return -float(found[range(len(ids) - 1), ids[1:]].sum()) / len(text)


def test_what_vllm_reads_is_the_model_that_llama_cpp_serves(bundle: Bundle) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = bundle.model_path / "safetensors"
    read = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    engine: Any = load_engine(bundle)
    try:
        asked = {"content": VERSE[:20], "add_special": True}
        ids = engine.process.call("POST", "/tokenize", asked)["tokens"]
        templated = engine.process.call("POST", "/apply-template", {"messages": [{"role": "user", "content": "霜"}]})
        total, _ = engine.process.log_likelihood(VERSE[:20])
    finally:
        engine.process.stop()
    assert read(VERSE[:20])["input_ids"] == ids
    said = read.apply_chat_template([{"role": "user", "content": "霜"}], tokenize=False, add_generation_prompt=True)
    assert said == f"<|end|>{templated['prompt']}"
    with torch.inference_mode():
        scores = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    ours = sum(scores[at, token].item() for at, token in enumerate(ids[1:]))
    assert ours == pytest.approx(total, rel=0.01)


def test_openais_client_gets_completions_and_conversations(client: openai.OpenAI) -> None:
    said = client.completions.create(model="writing", prompt="床前明", max_tokens=5, temperature=0)
    assert said.usage is not None
    assert said.usage.completion_tokens == 5
    chat: Any = [{"role": "user", "content": "The moon\nwho: Ann"}]
    assert client.chat.completions.create(model="writing", messages=chat, max_tokens=5).choices[0].finish_reason
    row = {"headline": "Snow", "facts": "who: Ann", "beginning": "The "}
    answer = httpx.post(str(client.base_url).replace("/v1/", "/predict"), json={"instances": [row]}).json()
    assert isinstance(answer["predictions"][0]["text"], str)
    parts = client.completions.create(model="writing", prompt="The", max_tokens=4, stream=True)
    assert "".join(part.choices[0].text for part in parts if part.choices)


def test_its_card_shows_what_it_draws(made: Chain) -> None:
    fields = json.loads((made.path("candidate") / "candidate.json").read_text())
    card = render_card(made.path("candidate"), fields, "writing")
    assert "Bits per byte by counted runs" in card
    assert "<h3>Drawn</h3>" in card


def chain(home: Path, source: Path, **more: Any) -> Chain:
    return Chain(task="writing", home=home, overrides={**SMALL, **more}, source=str(source))


@pytest.mark.parametrize(
    ("content", "words", "fix"),
    [
        (b"", "empty|no text", "file"),
        (b"One line.", "all rows have the same", "two different texts"),
        ("床前明月光".encode("gb18030"), "not in the encoding", "data.encoding=gb18030"),
    ],
)
def test_a_corpus_that_cannot_be_learned_from_is_refused(tmp_path: Path, content: bytes, words: str, fix: str) -> None:
    (tmp_path / "book.txt").write_bytes(content)
    made = chain(tmp_path / "home", tmp_path / "book.txt")
    with pytest.raises(PlatformError, match=words) as caught:
        made.dataset()
    assert fix in str(caught.value.fix)


def test_a_corpus_shorter_than_one_window_is_refused(tmp_path: Path, corpus: Path) -> None:
    made = chain(tmp_path, corpus, **{"model.window": 1 << 16})
    made.dataset()
    with pytest.raises(PlatformError, match="shorter than one window") as caught:
        made.call("train", made.path("dataset"), made.path("checkpoints"), made.path("model"))
    assert "--set model.window=" in str(caught.value.fix)


def test_the_end_of_a_single_book_is_held_out(tmp_path: Path) -> None:
    import pandas as pd

    lines = [f"Line {at} of the only book, which has many of them.\n" for at in range(800)]
    (tmp_path / "book.txt").write_text("".join(lines), encoding="utf-8")
    made = chain(tmp_path / "home", tmp_path / "book.txt")
    made.dataset()
    parts = [pd.read_parquet(made.path("dataset") / f"{name}.parquet") for name in ("train", "valid", "test")]
    whole = [("".join(rows["beginning"] + rows["label"])) for rows in parts]
    assert "".join(whole) == "".join(lines)
    assert len(whole[0]) > 5 * len(whole[1]) > 0
