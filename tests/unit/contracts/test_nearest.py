"""An index finds what an exact search finds, forbids what rules forbid, and is refused where it is another model's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contracts import tower
from contracts.engines.recommend import read_model, write_model
from contracts.errors import PlatformError
from contracts.nearest import FILE, SPEC, NearestSpec, read_nearest, recall, write_nearest
from contracts.recommender import Recommender, RecommendSpec

RNG = np.random.default_rng(11)
ITEMS, WIDTH = 3_000, 8
Vectors = NDArray[np.float32]


def clustered(lengths: float = 0.3) -> Vectors:
    """Items around 30 centres, of different lengths."""
    centres = RNG.normal(0, 1, (30, WIDTH))
    found = centres[RNG.integers(0, 30, ITEMS)] + RNG.normal(0, 0.4, (ITEMS, WIDTH))
    return np.asarray(found * np.exp(lengths * RNG.normal(0, 1, (ITEMS, 1))), dtype=np.float32)


VECTORS = clustered()
ASKED = [np.asarray(one, dtype=np.float32) for one in RNG.normal(0, 1, (20, WIDTH))]


def towers(vectors: Vectors, **spec: Any) -> Recommender:
    """A model whose person's tower is the mean of what items say."""
    unit = np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)
    count = len(unit)
    layers = (np.zeros((WIDTH, 2)), np.zeros(2), np.zeros((2, WIDTH)), np.zeros(WIDTH))
    arrays: dict[str, Any] = {
        "people": np.ones(count, np.float32),
        "trend": np.linspace(0, 1, count, dtype=np.float32),
        "fresh": np.zeros(count, bool),
        "vectors": unit,
        "factors": unit,
        tower.ASKS: unit,
        **dict(zip(tower.LAYERS, (one.astype(np.float32) for one in layers), strict=True)),
    }
    known = {"method": "tower", "k": 20, "pool": 100, "everybody": 10}
    return Recommender(RecommendSpec.model_validate({**known, **spec}), [f"i{at}" for at in range(count)], [], arrays)


def saved(folder: Path, model: Recommender, histories: list[list[int]] | None = None) -> Path:
    """With an index."""
    write_model(folder, model, ["ann"] if histories else [], histories or [])
    write_nearest(folder, model.arrays["factors"], ASKED, 100)
    return folder


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("model"), towers(VECTORS))


def test_an_index_finds_the_largest_products_whatever_their_lengths(tmp_path: Path) -> None:
    spec = write_nearest(tmp_path, VECTORS, ASKED, 100)
    found = read_nearest(tmp_path, VECTORS)
    assert found is not None
    assert spec.recall >= 0.985
    assert recall(found, VECTORS, ASKED, 100) == pytest.approx(spec.recall)
    assert (spec.items, spec.dimensions, spec.library.split(".")[0]) == (ITEMS, WIDTH, "usearch 2")
    exact = VECTORS @ ASKED[0]
    places = found.search(ASKED[0], 10)
    assert places[0] == exact.argmax()
    assert len(found.search(ASKED[0], 10 * ITEMS)) == ITEMS
    assert not len(found.search(np.zeros(WIDTH, np.float32), 5)), "nothing is near to what says nothing"
    with pytest.raises((ValueError, RuntimeError)):
        found.index.add(ITEMS + 1, np.zeros(WIDTH + 1, np.float32))  # the file is only read


def test_a_list_is_the_same_with_an_index_and_obeys_the_same_rules(indexed: Path) -> None:
    model = read_model(indexed)[0]
    exact = replace(model, nearest=None)
    same = 0
    for at in range(0, 300, 10):
        history, blocked = model.history([at, at + 1, ~(at + 2)])
        near = exact.ranked(history, blocked, 40, 0.0).items
        blocked[[int(name[1:]) for name in near[:5]]] = True
        found, wanted = (one.ranked(history, blocked, 20, 0.0) for one in (model, exact))
        assert not set(found.items) & {f"i{at}", f"i{at + 1}", f"i{at + 2}", *near[:5]}
        assert set(found.because[0]) <= {f"i{at}", f"i{at + 1}"}
        same += len(set(found.items) & set(wanted.items))
    assert same >= 0.98 * 30 * 20


def test_where_rules_forbid_what_is_near_all_items_are_looked_at(indexed: Path) -> None:
    model = read_model(indexed)[0]
    history, blocked = model.history([5])
    order = np.argsort(-(model.arrays["factors"] @ model.arrays["factors"][5]))
    blocked[order[:1_000]] = True
    found = model.ranked(history, blocked, 20, 0.0)
    assert list(found.items) == [f"i{at}" for at in order[1_000:1_020]]
    blocked[:] = True
    assert model.ranked(history, blocked, 20, 0.5).items == ()


def test_nobody_and_who_clicked_on_everything_are_served(indexed: Path) -> None:
    model = read_model(indexed)[0]
    nobody = model.ranked(*model.history([]), 20, 0.0)
    assert set(nobody.why) == {"popular"}
    everything = [*range(ITEMS)] * 40
    assert model.ranked(*model.history(everything), 20, 0.0).items == ()
    much = model.ranked(*model.history(everything[: 100_000 - 100_000 % ITEMS - 50]), 20, 0.0)
    assert much.items == ()
    most = [at for at in everything if at < ITEMS - 30]
    assert len(model.ranked(*model.history(most), 20, 0.0).items) == 20


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("items", "3,000 items of 8 dimensions, the model 2,999 of 8: it is of another model"),
        ("width", "3,000 items of 8 dimensions, the model 3,000 of 7: it is of another model"),
        ("vectors", "other vectors than the model: it is of another version of it"),
        ("library", "it is of another version"),
        ("format", "format"),
        ("cut", "is no index, or not a whole one"),
        ("half", "is no index, or not a whole one"),
        ("gone", "nearest.usearch is missing"),
        ("unsaid", "nearest.json"),
    ],
)
def test_an_index_of_another_model_or_version_is_refused(indexed: Path, tmp_path: Path, name: str, said: str) -> None:
    vectors = towers(VECTORS).arrays["factors"]
    for file in (FILE, SPEC):
        (tmp_path / file).write_bytes((indexed / file).read_bytes())
    spec = json.loads((tmp_path / SPEC).read_text())
    changed: dict[str, dict[str, Any]] = {"library": {"library": "usearch 3.0.0"}, "format": {"format": 2}}
    (tmp_path / SPEC).write_text(json.dumps(spec | changed.get(name, {})))
    if size := {"cut": 50, "half": 60_000}.get(name):
        (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:size])
    if name in ("gone", "unsaid"):
        (tmp_path / {"gone": FILE, "unsaid": SPEC}[name]).unlink()
    others = {"items": vectors[1:], "width": vectors[:, :7], "vectors": vectors[::-1]}
    with pytest.raises((ValueError, OSError), match=said):
        read_nearest(tmp_path, others.get(name, vectors))


def test_a_bundle_whose_index_is_another_one_s_says_so(tmp_path: Path) -> None:
    folder = saved(tmp_path / "one", towers(VECTORS))
    other = saved(tmp_path / "other", towers(clustered()))
    (folder / FILE).write_bytes((other / FILE).read_bytes())
    with pytest.raises(PlatformError, match="recommender refused") as caught:
        read_model(folder)
    assert "another version of it" in str(caught.value.detail)
    assert caught.value.code == "bad_bundle"


def test_layers_of_another_model_are_refused(tmp_path: Path) -> None:
    model = towers(VECTORS)
    arrays = {**model.arrays, tower.LAYERS[2]: np.zeros((3, WIDTH), np.float32)}
    write_model(tmp_path, replace(model, arrays=arrays), [], [])
    with pytest.raises(PlatformError) as caught:
        read_model(tmp_path)
    assert "tower.second has the shape (3, 8), not (2, 8)" in str(caught.value.detail)


def test_without_an_index_nothing_is_read(tmp_path: Path) -> None:
    assert read_nearest(tmp_path, VECTORS) is None
    spec = NearestSpec(library="usearch 2", items=1, dimensions=1, longest=1, width=1, recall=1)
    (tmp_path / SPEC).write_text(spec.model_dump_json())
    with pytest.raises(ValueError, match="no vectors of items"):
        read_nearest(tmp_path, None)
