"""The training loop: stops early, keeps the best weights, and goes on after a kill as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from pipelines.training.checkpoint import Checkpoint
from pipelines.training.device import resolve_device
from pipelines.training.loop import LoopConfig, eager, run_epochs
from tests.late import Late

torch = Late("torch")
pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="the loop trains torch models")


class KilledError(Exception):
    pass


def data() -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 5, generator=generator)
    return x, (x[:, 0] > 0).long()


def train(
    folder: Path,
    *,
    kill_after: int = 0,
    scores: list[float] | None = None,
    seed: int = 5,
    name: str = "f",
    **config: Any,
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Train a small net with dropout; `scores` replaces the measured metric, epoch by epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(16, 2))
    optimizer = eager(torch.optim.AdamW)(net.parameters(), lr=0.01, weight_decay=0.01)
    x, y = data()

    def evaluate(model: Any) -> dict[str, float]:
        with torch.no_grad():
            accuracy = float((model(x).argmax(dim=1) == y).double().mean())
        return {"error": scores[len(seen)] if scores else 1 - accuracy}

    seen: list[int] = []

    def progress(done: int, total: int, **metrics: float) -> None:
        seen.append(done)
        assert set(metrics) == {"train_loss", "error"}
        if kill_after and done == kill_after:
            raise KilledError

    history = run_epochs(
        net,
        optimizer,
        batches=lambda epoch: [(x[at : at + 16], y[at : at + 16]) for at in range(0, 64, 16)],
        steps_per_epoch=4,
        loss=lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1]),
        evaluate=evaluate,
        monitor="error",
        config=LoopConfig(**{"epochs": 6, "patience": 10, **config}),
        seed=seed,
        checkpoint=Checkpoint(folder / "c.pt", name),
        progress=progress,
    )
    return {key: value.clone() for key, value in net.state_dict().items()}, history


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return all(torch.equal(left[key], right[key]) for key in left)


def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, history = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", kill_after=3)
    resumed, continued = train(tmp_path / "killed")
    assert same(whole, resumed)
    assert continued == history
    assert len(history) == 6


def test_a_checkpoint_within_an_epoch_of_an_older_form_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, history = train(tmp_path / "whole")
    save = Checkpoint.save

    def older(self: Any, tensors: dict[str, Any], notes: dict[str, Any]) -> None:
        if "within" not in notes:
            return save(self, tensors, notes)
        [loss] = notes.pop("losses")
        save(self, tensors | {"random": [one for [one] in tensors["random"]]}, notes | {"loss": loss})
        if len(notes["history"]) == 2:
            raise KilledError

    monkeypatch.setattr(Checkpoint, "save", older)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", checkpoint_steps=2)
    monkeypatch.undo()
    resumed, continued = train(tmp_path / "killed", checkpoint_steps=2)
    assert same(whole, resumed)
    assert continued == history


def test_each_process_goes_on_with_its_own_random_numbers_and_more_of_them_with_new_ones() -> None:
    from pipelines.training.distributed import Group
    from pipelines.training.loop import _begun

    states = [torch.Generator().manual_seed(rank).get_state() for rank in range(2)]
    losses = [3.0, 5.0]
    notes = {"losses": losses, "within": 4}
    for rank in range(2):
        found = _begun(Group(rank, 2), 1, 0, notes, [states])
        assert (found.steps, found.loss) == (4, losses[rank])
        assert torch.equal(found.random[0], states[rank])
    others = [_begun(Group(rank, 3), 1, 0, notes, [states]) for rank in range(3)]
    assert [one.loss for one in others] == [4.0] * 3, "their mean is what counts"
    drawn = {tuple(one.random[0].tolist()) for one in others}
    assert len(drawn) == 3


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, history = train(tmp_path)
    again, same_history = train(tmp_path, kill_after=1)  # would raise if an epoch ran
    assert same(first, again)
    assert same_history == history


def test_seeds_decide_the_weights(tmp_path: Path) -> None:
    first, second = (train(tmp_path / name)[0] for name in ("a", "b"))
    other = train(tmp_path / "c", seed=6)[0]
    assert same(first, second)
    assert not same(first, other)


def test_it_stops_without_progress_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    scores = [0.5, 0.1, 0.1, 0.3, 0.4, 0.4]
    weights, history = train(tmp_path / "early", scores=scores, patience=2)
    assert [entry["error"] for entry in history] == [0.5, 0.1, 0.1, 0.3]
    best, _ = train(tmp_path / "two", scores=scores, epochs=2)
    assert same(weights, best)


def test_the_kept_weights_are_averaged_over_steps(tmp_path: Path) -> None:
    assert not same(train(tmp_path / "raw", average=0.0)[0], train(tmp_path / "mean", average=0.9)[0])


def test_gradients_are_clipped(tmp_path: Path) -> None:
    still = train(tmp_path / "tiny", clip=1e-12, weight_decay=0.0, average=0.0, epochs=1)[0]
    free = train(tmp_path / "free", average=0.0, epochs=1)[0]
    assert not same(still, free)


def test_a_checkpoint_of_something_else_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(tmp_path, kill_after=2, name="first")
    weights, history = train(tmp_path, name="second")
    assert same(weights, train(tmp_path / "fresh")[0])
    assert len(history) == 6


def test_saving_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path / "c.pt", "f")
    checkpoint.save({"w": torch.ones(3)}, {"n": 1})

    def fail(value: Any, stream: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", fail)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save({"w": torch.zeros(3)}, {"n": 2})
    loaded = checkpoint.load()
    assert loaded is not None
    assert loaded[1] == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_auto_prefers_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        assert resolve_device("auto") == expected


@pytest.mark.parametrize("wanted", ["tpu", "cuda", "cuda:1", "cpu:x"])
def test_a_device_that_is_not_there_is_an_error(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PlatformError, match=f"cannot train on device '{wanted}'") as caught:
        resolve_device(wanted)
    assert "cpu" in caught.value.detail


def test_the_rate_rises_and_falls_to_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def seen(optimizer: Any, *given: Any) -> Any:
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", seen)
    train(tmp_path, epochs=2, warmup=2, learning_rate=0.6, schedule="linear")
    assert rates == pytest.approx([0.3, 0.6, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


LOADED = """
import sys
import torch
from pipelines.training.loop import eager

def steps(optimizer, **settings):
    torch.manual_seed(1)
    layer = torch.nn.Linear(3, 1)
    made = optimizer(layer.parameters(), lr=0.1, weight_decay=0.1, **settings)
    for _ in range(3):
        made.zero_grad()
        layer(torch.ones(2, 3)).sum().backward()
        made.step()
        made.load_state_dict(made.state_dict())
    return layer.weight.tolist()

named = (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}), (torch.optim.AdamW, {})
ours = [steps(eager(kind), **settings) for kind, settings in named]
assert "torch._dynamo" not in sys.modules
assert ours == [steps(kind, **settings) for kind, settings in named]
"""


def test_an_optimizer_without_the_compiler_takes_the_same_steps() -> None:
    subprocess.run([sys.executable, "-c", LOADED], check=True)
