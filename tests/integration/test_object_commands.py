"""The commands of a detector, as they are typed: a clip that is scored and drawn, an image that is asked about."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.bundle import write_bundle
from contracts.endpoints import Endpoints
from contracts.registry import Registry
from tests.detection_bundle import spots
from tests.image_bundle import picture
from tests.moving_parts import write_clip
from tests.shell import Shell

pytestmark = pytest.mark.integration
SPOT = {"label": "spot", "score": 1.0, "box": [4.0, 4.0, 12.0, 12.0]}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """With a champion of `objects`, which finds a spot in the middle of what is bright."""
    folder = tmp_path_factory.mktemp("objects")
    fields = spots(folder).document.model_dump(mode="json", exclude={"files", "schema_version"})
    bundle = write_bundle(folder / "source", folder / "named", {**fields, "name": "objects", "task": "objects"})
    registry = Registry(Endpoints(home=str(folder / "home")).resolved())
    registry.publish(bundle)
    registry.promote("objects:1")
    return Shell(folder / "home")


def test_an_image_is_asked_about_and_drawn(shell: Shell) -> None:
    folder = shell.home.parent
    (folder / "a.png").write_bytes(picture(255, size=16))
    told = shell.json("predict", "objects", "--image", "a.png", "--draw", "out.png")
    assert [one["objects"] for one in told["predictions"]] == [[SPOT]]
    drawn = np.asarray(Image.open(folder / told["drawn"][0]).convert("RGB"))
    assert Path(told["drawn"][0]).name == "out.png"
    side = drawn.shape[0] / 16
    assert (drawn[int(8 * side), int(8 * side)] == 255).all(), "within the box it is as it was"
    edge = drawn[int(6 * side) : int(10 * side), int(3.5 * side) : int(4.5 * side)]
    assert (edge != 255).any(axis=2).any(axis=1).all(), "a line along its left side"


def test_a_clip_is_scored_and_drawn(shell: Shell) -> None:
    pytest.importorskip("av", reason="the extra video is not installed: no PyAV")
    folder = shell.home.parent
    frames = [Image.new("RGB", (64, 48), (light,) * 3) for light in (0, 255, 255, 255)]
    write_clip(folder / "clip.mp4", frames, [at / 25 for at in range(4)], "libvpx-vp9")
    told = shell.json("score", "objects", "--source", "clip.mp4", "--draw", "out.mp4", "--out", "scored")
    [clip] = told["clips"]
    assert (told["rows"], clip["clip"], clip["looked_at"], clip["tracks"]["spot"]) == (4, "clip.mp4", 4, 1)
    lines = [json.loads(line) for line in (folder / "scored" / "clip.mp4.jsonl").read_text().splitlines()]
    assert [[one["label"] for one in line["objects"]] for line in lines] == [[], ["spot"], ["spot"], ["spot"]]
    assert (folder / "out.mp4").stat().st_size > 500
    assert Path(clip["drawn"]) == folder / "out.mp4"
