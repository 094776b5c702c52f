"""Networks that are trained against an adversary who guesses the group of a row from the answer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from contracts.bundle import Input
from contracts.errors import PlatformError
from pipelines.tasks import get_task, recipe_config
from pipelines.training.adversary import UNKNOWN, Opponent, against, opposed
from pipelines.training.boosting import Rows
from pipelines.training.loop import LoopConfig
from pipelines.training.mitigation import Mitigation
from pipelines.training.network import NetworkConfig, fit_network
from pipelines.training.privacy import PrivacyConfig
from tests.late import Late

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch, nn = Late("torch"), Late("torch.nn")

INPUTS = [Input(name="income", dtype="float64"), Input(name="town", dtype="string", categories=["a", "b"])]
NETWORK = NetworkConfig(
    hidden=(8,), training=LoopConfig(epochs=6, batch_size=64, learning_rate=0.02, average=0.9, class_weights=False)
)


def silent(*_: Any, **__: Any) -> None:
    """Progress that nobody looks at."""


def opponent(groups: list[int], strength: float = 1.0, sees_truth: bool = False) -> Opponent:
    return Opponent(groups=np.array(groups, dtype=np.int64), strength=strength, sees_truth=sees_truth)


@pytest.mark.parametrize(("classes", "sees_truth"), [(1, False), (1, True), (3, True)])
def test_what_the_adversary_sends_back_is_turned_round_and_its_own_learning_is_not(
    classes: int, sees_truth: bool
) -> None:
    torch.manual_seed(0)
    base: Any = nn.Linear(4, classes)
    x = torch.randn(6, 4)
    truth, faced = torch.tensor([0, 1, 0, 1, 1, 0]), opponent([0, 1, 1, 0, 1, UNKNOWN], 3.0, sees_truth)
    wrapped = opposed(base, faced, classes, steps=1)
    wrapped.step += 1_000_000  # warm
    answers, loss = against(faced, "cpu")(wrapped, (x,), truth, torch.arange(6))
    loss.backward()
    torch.testing.assert_close(answers, base(x))
    turned, own = base.weight.grad.clone(), wrapped.adversary[0].weight.grad.clone()
    wrapped.zero_grad()
    guesses = wrapped.adversary(
        torch.cat([base(x), nn.functional.one_hot(truth, max(classes, 2))], dim=1) if sees_truth else base(x)
    )
    weight = torch.tensor([5 / 4, 5 / 6])
    nn.functional.cross_entropy(guesses[:5], torch.tensor([0, 1, 1, 0, 1]), weight=weight).backward()
    torch.testing.assert_close(turned, -3.0 * base.weight.grad)
    torch.testing.assert_close(own, wrapped.adversary[0].weight.grad)


def test_rows_that_do_not_say_their_group_teach_the_adversary_nothing() -> None:
    faced = opponent([0, 1, UNKNOWN, UNKNOWN])
    wrapped = opposed(nn.Linear(2, 1), faced, 1, steps=10)
    _, loss = against(faced, "cpu")(wrapped, (torch.randn(2, 2),), torch.zeros(2), torch.tensor([2, 3]))
    assert float(loss.detach()) == 0.0


def test_the_strength_rises_with_the_steps_of_training_and_not_with_evaluations() -> None:
    faced = opponent([0, 1])
    wrapped = opposed(nn.Linear(2, 1), faced, 1, steps=100)
    sizes = []
    for step in range(0, 100, 33):
        wrapped.step.fill_(step)
        wrapped.zero_grad()
        torch.manual_seed(1)
        against(faced, "cpu")(wrapped, (torch.randn(2, 2),), torch.zeros(2), torch.arange(2))[1].backward()
        sizes.append(float(wrapped.model.weight.grad.norm()))
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.1 * sizes[-1]
    before = float(wrapped.step)
    wrapped.eval()
    wrapped(torch.randn(2, 2))
    assert float(wrapped.step) == before


def table(rows: int, seed: int) -> tuple[Rows, Any]:
    """Women earn less and live in another town."""
    rng = np.random.default_rng(seed)
    woman = rng.random(rows) < 0.5
    income = rng.normal(0, 1, rows) - 1.0 * woman
    town = np.where(rng.random(rows) < np.where(woman, 0.9, 0.1), 1.0, 0.0)
    label = (rng.logistic(size=rows) < 1.5 * income).astype(np.int64)
    return Rows(x=np.stack([income, town], axis=1), y=label), woman


def test_a_network_tells_less_of_the_group_and_is_the_same_again(tmp_path: Path) -> None:
    (train, woman), (valid, women) = table(2000, 1), table(1000, 2)

    def gap(strength: float, name: str) -> tuple[float, Any]:
        faced = opponent(woman.astype(int).tolist(), strength)
        found = fit_network(
            (train, valid), INPUTS, NETWORK, PrivacyConfig(), 7, tmp_path / name, silent, faced if strength else None
        )
        said = found.raw > 0
        return float(abs(said[women].mean() - said[~women].mean())), found

    plain, _ = gap(0.0, "plain")
    fair, found = gap(3.0, "fair")
    assert plain > 0.3
    assert fair < plain / 2
    assert len(found.layers) == 2  # without the adversary
    assert len(found.history) == NETWORK.training.epochs  # the best answers would be those of the first epochs
    np.testing.assert_array_equal(found.raw, gap(3.0, "again")[1].raw)


def test_only_networks_have_an_adversary(tmp_path: Path) -> None:
    from pipelines.training.scorecard import ScorecardConfig
    from pipelines.training.tabular import CostConfig, train_tabular

    frame = pd.DataFrame(
        {"id": list("abcd"), "income": [1.0, 2, 3, 4], "town": ["a", "b"] * 2, "label": ["n", "y"] * 2}
    )
    for part in ("train", "valid"):
        frame.to_parquet(tmp_path / f"{part}.parquet")
        pd.DataFrame({"id": list("abcd"), "sex": ["w", "m"] * 2}).to_parquet(tmp_path / f"groups_{part}.parquet")
    asked = Mitigation(method="adversarial", column="sex")
    folders = tmp_path / "out", tmp_path / "kept"
    with pytest.raises(PlatformError, match="a scorecard cannot be trained against an adversary"):
        train_tabular(
            tmp_path, INPUTS, ["n", "y"], ScorecardConfig(), CostConfig(), 7, *folders, silent, mitigation=asked
        )


def letters(rows: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is wrong is the same for all; letters of women are taken for complaints more often, and say who wrote."""
    rng = np.random.default_rng(seed)
    woman, wrong = rng.random(rows) < 0.5, rng.random((rows, 5)) < 0.5
    bad = rng.logistic(size=rows) < 1.5 * (wrong.sum(axis=1) - 2.5) + np.where(woman, 1.5, -1.5)
    words = [" ".join(np.where(row, "late", "fine")) for row in wrong]
    text = [f"{'madam' if one else 'sir'} {said}" for one, said in zip(woman, words, strict=True)]
    ids = [f"{seed}-{at}" for at in range(rows)]
    frame = pd.DataFrame({"id": ids, "text": text, "aspect": "", "label": np.where(bad, "negative", "positive")})
    return frame, pd.DataFrame({"id": ids, "sex": np.where(woman, "w", "m")})


def test_texts_are_learned_from_against_an_adversary_and_the_card_gets_its_price(tmp_path: Path) -> None:
    task: Any = copy.copy(get_task("sentiment"))
    task.favourable = "positive"
    for seed, part in enumerate(("train", "valid")):
        frame, groups = letters(600, seed)
        frame.to_parquet(tmp_path / f"{part}.parquet")
        groups.to_parquet(tmp_path / f"groups_{part}.parquet")
    quick = {"training.epochs": 4, "training.batch_size": 32, "training.learning_rate": 0.02, "training.average": 0.8}
    small = {"model.embedding": 8, "model.hidden": 4, "model.bidirectional": False, "model.dropout": 0.0}
    asked = {"method": "adversarial", "column": "sex", "strengths": [0.0, 2.0], "strength": 2.0}
    given = {**quick, **small, **{f"mitigation.{key}": value for key, value in asked.items()}}
    config: Any = recipe_config(task, "embedding_lstm", given)
    found = config.train(task, tmp_path, tmp_path / "out", tmp_path / "kept", silent)
    plain, fair = found["tradeoff"]["points"]
    assert plain["selection_ratio"] < 0.6
    assert fair["selection_ratio"] > plain["selection_ratio"] + 0.15
    assert (found["parameters"]["strength"], found["output"]["classes"]) == (2.0, ["negative", "positive"])
    assert (tmp_path / "out" / "model.onnx").exists()
    for changes, said in (
        ({"mitigation.method": "reweighing"}, "treated alike by an adversary"),
        ({"mitigation.column": "age"}, "is no sensitive column"),
        ({"privacy.epsilon": 3.0}, "cannot be trained with this mitigation.method"),
    ):
        other: Any = recipe_config(task, "embedding_lstm", given | changes)
        with pytest.raises(PlatformError, match=said):
            other.train(task, tmp_path, tmp_path / "other", tmp_path / "none", silent)
