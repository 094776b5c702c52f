"""Differential privacy: what is refused, what noise costs, and what a private training does to gradients."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.privacy_ledger import Release
from pipelines.recipes.text.examples import Examples
from pipelines.tasks import get_task, recipe_config
from pipelines.training.boosting import Rows
from pipelines.training.ghost_clipping import is_linear
from pipelines.training.image_network import residual_network
from pipelines.training.loop import LoopConfig
from pipelines.training.lstm_text import LstmConfig, build_model
from pipelines.training.network import NetworkConfig, check_private, fit_network, form_of
from pipelines.training.onnx_tabular import save_network
from pipelines.training.privacy import PrivacyConfig, as_private, drawn, noise_for, of_public_rows, spent
from pipelines.training.tabular import CostConfig, LogisticConfig
from tests.late import Late

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch, nn = Late("torch"), Late("torch.nn")

INPUTS = [Input(name="amount", dtype="float64"), Input(name="kind", dtype="string", categories=["a", "b", "c"])]
SMALL = NetworkConfig(hidden=(4,), training=LoopConfig(epochs=2, batch_size=50, class_weights=False))


@pytest.fixture(autouse=True)
def _nobody_pays() -> Iterator[None]:
    with of_public_rows():
        yield


def silent(*_: Any, **__: Any) -> None:
    """Progress that nobody looks at."""


def table(rows: int = 300) -> tuple[Rows, Rows]:
    rng = np.random.default_rng(3)
    amount, kind = np.exp(rng.normal(3, 1, rows)), rng.integers(0, 3, rows).astype(float)
    amount[::17], kind[::13] = np.nan, np.nan
    y = (np.nan_to_num(np.log(amount)) + np.nan_to_num(kind) + rng.normal(0, 1, rows) > 4).astype(np.int64)
    both = Rows(x=np.stack([amount, kind], axis=1), y=y)
    return both, Rows(x=both.x[:80], y=y[:80])


def gaussian(noise: float, delta: float) -> float:
    """The exact epsilon of one Gaussian mechanism (B. Balle, Y. Wang, 2018)."""

    def phi(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    low, high = 0.0, 50.0
    for _ in range(80):
        e = (low + high) / 2
        found = phi(0.5 / noise - e * noise) - math.exp(e) * phi(-0.5 / noise - e * noise)
        low, high = (e, high) if found > delta else (low, e)
    return high


@pytest.mark.parametrize("value", [0, -1, 51, "inf", "nan"])
def test_an_epsilon_that_promises_nothing_is_refused_by_name(value: Any) -> None:
    with pytest.raises(PlatformError) as err:
        recipe_config(get_task("credit"), "network", {"privacy.epsilon": value})
    assert err.value.code == "bad_config"
    assert "privacy.epsilon" in err.value.detail


@pytest.mark.parametrize(("key", "value"), [("delta", 0), ("delta", 1), ("clip", 0), ("clip", -2)])
def test_deltas_and_clips_have_limits(key: str, value: float) -> None:
    with pytest.raises(PlatformError, match="invalid configuration") as err:
        recipe_config(get_task("credit"), "network", {f"privacy.{key}": value})
    assert f"privacy.{key}" in err.value.detail


@pytest.mark.parametrize(
    ("model", "cost", "weighs", "delta", "fix"),
    [
        (LogisticConfig(), CostConfig(rule="expected"), False, 1e-5, "--recipe network"),
        (SMALL, CostConfig(rule="observed"), False, 1e-5, "--set cost.rule=expected"),
        (SMALL, CostConfig(rule="expected", false_negative="amount"), False, 1e-5, "--set cost.false_negative=5.0"),
        (SMALL, CostConfig(rule="expected"), True, 1e-5, "--set mitigation.method=none"),
        (SMALL, CostConfig(rule="expected"), False, 0.01, "--set privacy.delta="),
    ],
)
def test_what_would_tell_about_rows_beside_the_gradients_is_refused_with_its_cure(
    model: Any, cost: CostConfig, weighs: bool, delta: float, fix: str
) -> None:
    with pytest.raises(PlatformError) as err:
        check_private(model, cost, weighs, PrivacyConfig(epsilon=1.0, delta=delta), 1000)
    assert err.value.code == "not_private"
    assert fix in err.value.fix


@pytest.mark.parametrize(("noise", "steps"), [(2.0, 1), (5.0, 4), (8.0, 1)])
def test_the_cost_of_sums_over_all_rows_is_the_exact_one_within_one_percent(noise: float, steps: int) -> None:
    exact = gaussian(noise / math.sqrt(steps), 1e-5)
    found = spent([Release(noise=noise, share=1.0, steps=1)] * steps, 1e-5)
    assert exact <= found <= exact * 1.01 + 0.005


def test_two_trainings_cost_more_than_one_and_less_than_their_sum() -> None:
    first, second = Release(noise=2.0, share=0.05, steps=40), Release(noise=1.5, share=0.05, steps=40)
    one, other, both = spent([first], 1e-5), spent([second], 1e-5), spent([first, second], 1e-5)
    assert max(one, other) < both < one + other
    assert spent([Release(noise=2.0, share=0.05, steps=80)], 1e-5) == pytest.approx(spent([first, first], 1e-5))
    assert spent([], 1e-5) == 0


def test_the_noise_spends_nearly_what_is_asked_for_and_never_more() -> None:
    before = [Release(noise=20.0, share=1.0, steps=1)]
    noise = noise_for(PrivacyConfig(epsilon=1.0), 0.1, 20, before)
    used = spent([*before, Release(noise=noise, share=0.1, steps=20)], 1e-5)
    assert 0.98 < used <= 1.0
    with pytest.raises(PlatformError, match="cannot be reached"):
        noise_for(PrivacyConfig(epsilon=0.1), 0.1, 20, before)


def stepped(clip: float, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """How far a step of rate 1 moves the weights of a linear model, and the mean of its gradients."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 1), torch.randn(8, 3), torch.randn(8)
    before = model.weight.detach().clone()
    (plain,) = torch.autograd.grad(((model(x)[:, 0] - y) ** 2).sum() / 8, model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    told = {"noise_multiplier": noise}
    with as_private(model, optimizer, PrivacyConfig(epsilon=1.0, clip=clip), told, 8, "") as private:
        ((model(x)[:, 0] - y) ** 2).sum().backward()
        private.step()
    assert not hasattr(model.weight, "grad_sample")
    return before - model.weight.detach(), plain


def test_without_noise_and_cuts_a_private_step_is_an_ordinary_one() -> None:
    moved, plain = stepped(clip=1e6, noise=0.0)
    torch.testing.assert_close(moved, plain)


def test_no_row_moves_the_weights_further_than_the_clip_and_noise_is_never_the_same() -> None:
    moved, _ = stepped(clip=1e-3, noise=0.0)
    assert float(moved.norm()) <= 1e-3
    noisy = [stepped(clip=1.0, noise=1.0)[0] for _ in range(2)]
    assert not torch.equal(*noisy)


def chain(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), *layers, nn.Linear(3, 1))


@pytest.mark.parametrize("rows", [0, 1, 40])
@pytest.mark.parametrize("clip", [1e-3, 0.5, 1e6])
def test_gradients_that_are_never_made_are_cut_like_those_that_are(
    rows: int, clip: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways to cut, of the same rows, without noise; some rows are above the clip of 0.5 and some below."""
    torch.manual_seed(rows)
    x, y, moved = torch.randn(rows, 5), torch.randn(rows), []
    for ghosts in (True, False):
        monkeypatch.setattr("pipelines.training.privacy.is_linear", lambda model, now=ghosts: now and is_linear(model))
        model = chain()
        before = [one.detach().clone() for one in model.parameters()]
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        config, told = PrivacyConfig(epsilon=1.0, clip=clip), {"noise_multiplier": 0.0}
        with as_private(model, optimizer, config, told, 8, "") as private:
            for _ in range(2):
                private.zero_grad()
                ((model(x)[:, 0] - y) ** 2).sum().backward()
                with torch.no_grad():
                    model(torch.randn(3, 5))  # an evaluation between, which leaves nothing behind
                private.step()
        assert not model[0]._forward_hooks
        pairs = zip(before, model.parameters(), strict=True)
        moved.append(torch.cat([(old - new.detach()).flatten() for old, new in pairs]))
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-4, atol=1e-7)
    assert bool(moved[0].any()) == (rows > 0)


def test_only_chains_of_linear_layers_are_cut_without_their_gradients() -> None:
    shared = nn.Linear(3, 3)
    assert is_linear(chain())
    assert is_linear(nn.Linear(2, 1))
    assert not is_linear(chain(nn.LayerNorm(3)))
    assert not is_linear(chain(shared, shared))
    assert not is_linear(nn.Sequential(nn.Linear(3, 2, bias=False)))


def test_batch_norm_is_refused_with_the_fix_that_the_recipe_gives() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with (
        pytest.raises(PlatformError, match="cannot be trained privately") as err,
        as_private(
            model, optimizer, PrivacyConfig(epsilon=1.0), {"noise_multiplier": 1.0}, 8, "--set model.norm=group"
        ),
    ):
        pass
    assert err.value.fix == "--set model.norm=group"


def test_rows_are_drawn_each_by_itself() -> None:
    sizes = [len(rows) for rows in drawn(1000, 0.1, 200)]
    assert len(sizes) == 200
    assert abs(np.mean(sizes) - 100) < 5
    assert 5 < np.std(sizes) < 15  # of shuffled batches it would be 0


@pytest.mark.parametrize("privacy", [PrivacyConfig(), PrivacyConfig(epsilon=3.0, delta=1e-4)])
def test_the_graph_answers_as_the_network(privacy: PrivacyConfig, tmp_path: Path) -> None:
    import onnxruntime

    rows = table()
    found = fit_network(rows, INPUTS, SMALL, privacy, 7, tmp_path, silent)
    save_network(form_of(INPUTS, found), {"kind": "none"}, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    said, parts = session.run(["probabilities", "contributions"], {"features": rows[1].x})
    assert parts.shape == rows[1].x.shape
    apart = found.raw - parts.sum(axis=1)  # the log-odds of the usual row, which is the same for all
    assert np.ptp(apart) < 0.1 * np.ptp(found.raw)  # but for the steps
    np.testing.assert_allclose(said[:, 1], 1 / (1 + np.exp(-found.raw)), atol=1e-5)
    np.testing.assert_allclose(said.sum(axis=1), 1)


def test_a_private_training_says_nothing_of_the_loss_of_its_rows_and_goes_on_without_paying_again(
    tmp_path: Path,
) -> None:
    privacy = PrivacyConfig(epsilon=3.0, delta=1e-4)
    found = fit_network(table(), INPUTS, SMALL, privacy, 7, tmp_path / "a", silent)
    again = fit_network(table(), INPUTS, SMALL, privacy, 7, tmp_path / "a", silent)
    other = fit_network(table(), INPUTS, SMALL, privacy, 7, tmp_path / "b", silent)
    assert found.privacy is not None
    assert all(set(entry) == {"epoch", "valid_loss"} for entry in found.history)
    assert found.privacy == again.privacy == json.loads((tmp_path / "a" / "privacy.json").read_text())
    assert found.privacy["epsilon"] <= 3.0
    assert found.privacy["steps"] == 12
    np.testing.assert_array_equal(found.raw, again.raw)
    assert not np.array_equal(found.raw, other.raw)  # the seed does not give the noise away


def test_a_plain_network_gives_the_same_bits_again(tmp_path: Path) -> None:
    runs = [fit_network(table(), INPUTS, SMALL, PrivacyConfig(), 7, tmp_path / str(at), silent) for at in range(2)]
    np.testing.assert_array_equal(runs[0].raw, runs[1].raw)
    assert runs[0].privacy is None


def test_strings_without_a_list_of_categories_are_refused(tmp_path: Path) -> None:
    inputs = [INPUTS[0], Input(name="kind", dtype="string")]
    with pytest.raises(PlatformError, match="kind"):
        fit_network(table(), inputs, SMALL, PrivacyConfig(), 7, tmp_path, silent)


def rows_of(model: nn.Module, *given: torch.Tensor) -> float:
    """How far the gradients of rows, added up, are from the gradient of their sum, beside its size."""
    import opacus

    def loss() -> torch.Tensor:
        labels = torch.arange(len(given[0])) % 3
        return nn.functional.cross_entropy(model(*given), labels, reduction="sum")

    whole = torch.autograd.grad(loss(), list(model.parameters()))
    opacus.GradSampleModule(model, loss_reduction="sum")
    loss().backward()
    parameters: list[Any] = list(model.parameters())
    pairs = zip(parameters, whole, strict=True)
    return max(float((p.grad_sample.sum(0) - g).abs().max() / g.abs().max()) for p, g in pairs)


def test_the_gradients_of_texts_and_images_add_up_to_the_ordinary_one() -> None:
    """Where a library multiplies them by the size of a batch, cutting hides it."""
    torch.manual_seed(0)
    lstm = build_model(50, 3, LstmConfig(embedding=8, hidden=4, dropout=0.0), private=True)
    lengths = torch.tensor([9, 5, 3, 9, 1, 7])
    ids = torch.randint(2, 50, (6, 9)).masked_fill(torch.arange(9)[None] >= lengths[:, None], 0)
    assert rows_of(lstm, ids, lengths) < 1e-4
    assert rows_of(residual_network(3, 3, (8, 16), (1,), "group"), torch.randn(6, 3, 16, 16)) < 1e-4


def test_a_private_lstm_has_the_weights_of_an_ordinary_one() -> None:
    config = LstmConfig(embedding=8, hidden=4)
    private, plain = build_model(50, 3, config, private=True), build_model(50, 3, config)
    plain.load_state_dict({name: value for name, value in private.state_dict().items() if ".l0." not in name})
    ids, lengths = torch.randint(2, 50, (4, 7)), torch.tensor([7, 7, 3, 1])
    torch.testing.assert_close(private.eval()(ids, lengths), plain.eval()(ids, lengths))


@pytest.mark.parametrize(
    ("settings", "fix"),
    [
        ({}, "--set model.norm=group"),
        ({"model.norm": "group", "augment.mixup": 0.5}, "--set augment.mixup=0.0"),
        ({"model.norm": "group", "model.stem": "whitened"}, "--set model.stem=learned"),
        ({"model.norm": "group", "training.precision": "bf16"}, "--set training.precision=fp32"),
        ({"model.norm": "group", "int8": True}, "--set int8=false"),
    ],
)
def test_images_that_are_mixed_cannot_be_learned_from_privately(
    settings: dict[str, Any], fix: str, tmp_path: Path
) -> None:
    recipe: Any = recipe_config(get_task("images"), "resnet", {"privacy.epsilon": 2.0, **settings})
    with pytest.raises(PlatformError) as err:
        recipe._paid(500, tmp_path)
    assert err.value.code == "not_private"
    assert fix in err.value.fix


def test_words_of_private_texts_come_from_the_sample_of_the_task(tmp_path: Path) -> None:
    task: Any = get_task("sentiment")
    secret = ["xyzzyquux is my word", "and xyzzyquux again", "good good", "bad bad"] * 20
    rows = pd.DataFrame({"text": secret, "aspect": "", "label": ["positive", "negative"] * 40})
    examples = Examples(
        task=task, train=rows, valid=rows[:8], fields=("text", "aspect"), classes=["negative", "positive"]
    )
    quick = {"training.epochs": 1, "training.batch_size": 16, "model.embedding": 4, "model.hidden": 2}
    for epsilon in (8.0, None):
        config: Any = recipe_config(task, "embedding_lstm", {"privacy.epsilon": epsilon, **quick})
        found = config.learn(examples, tmp_path, tmp_path / f"checkpoints-{epsilon}", silent)
        assert ("xyzzyquux" in (tmp_path / "tokenizer.json").read_text()) == (epsilon is None)
        assert ("privacy" in found) == (epsilon is not None)
        assert ("train_loss" in found["history"][0]) == (epsilon is None)
        assert (found["parameters"]["temperature"] == 1.0) == (epsilon is not None)
