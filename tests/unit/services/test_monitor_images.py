"""Images through a service and its log to a monitor's verdict."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from contracts.baseline import describe_inputs
from contracts.bundle import Bundle, BundleDocument, Input, write_bundle
from contracts.content import describe_content
from contracts.engines import load_engine
from services.monitor.model_monitor import ModelMonitor
from services.monitor.rules import Rules
from tests.detection_bundle import spots
from tests.image_bundle import SIGNATURE, image_source

IMAGE = Input(name="image", dtype="bytes")
ABOUT = {"name": "shades", "task": "shades", "recipe": "r", "modality": "image", "engine": "onnx"}
LINEAGE = {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "t"}
Change = Callable[[Image.Image], Image.Image]


def photos(seed: int, change: Change = lambda image: image) -> list[bytes]:
    """300 files of noise of any light, 20 to 32 pixels wide and 16 high."""
    rng, files = np.random.default_rng(seed), []
    for _ in range(300):
        gray = rng.normal(rng.uniform(80, 160), rng.uniform(20, 40), (16, int(rng.integers(20, 33)), 3))
        buffer = io.BytesIO()
        change(Image.fromarray(gray.clip(0, 255).astype(np.uint8))).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def normal(engine: Any) -> dict[str, Any]:
    """`baseline.json`, as the evaluation makes it of test images."""
    files = np.empty(300, object)
    files[:] = photos(1)
    columns = {"image": files}
    inputs = describe_inputs(columns, [IMAGE])
    inputs["image"] |= describe_content(engine.decode(columns), [IMAGE], inputs)["image"]
    return {"rows": len(files), "inputs": inputs, "answer": {}}


def classifier(folder: Path) -> Bundle:
    """It sees 8 pixels of each line and column."""
    source = folder / "source"
    image_source(source, resample="nearest")
    fields = {**ABOUT, "signature": SIGNATURE, "gate": {"passed": True, "checks": []}, "lineage": LINEAGE}
    engine = load_engine(Bundle(source, BundleDocument.model_validate({**fields, "files": {}}), ""))
    (source / "baseline.json").write_text(json.dumps(normal(engine)))
    return write_bundle(source, folder / "bundles", fields)


def detector(folder: Path) -> Bundle:
    (folder / "source").mkdir(parents=True)
    engine = load_engine(spots(folder / "first", resample="nearest"))
    (folder / "source" / "baseline.json").write_text(json.dumps(normal(engine)))
    return spots(folder, resample="nearest")


def enlarged(image: Image.Image) -> Image.Image:
    """The same from a camera with nine times the pixels, of which a model of images sees the same."""
    return image.resize((3 * image.width, 3 * image.height), Image.Resampling.NEAREST)


def _over_a_minute(folder: Path) -> datetime:
    """Write the times of all records anew, for a burst is no drift; returns the first."""
    [file] = folder.rglob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    begun = datetime.fromisoformat(lines[0]["time"])
    for at, line in enumerate(lines):
        line["time"] = (begun + timedelta(seconds=60 * at / len(lines))).isoformat(timespec="milliseconds")
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return begun


@pytest.mark.parametrize(
    ("bundle", "change", "named"),
    [
        (classifier, lambda image: image, set()),
        (classifier, enlarged, {"image:width", "image:height"}),
        (classifier, lambda image: image.point(lambda value: value // 3), {"image:brightness", "image:contrast"}),
        (classifier, lambda image: image.filter(ImageFilter.GaussianBlur(2)), {"image:contrast", "image:sharpness"}),
        (detector, enlarged, {"image:width", "image:height"}),
    ],
    ids=["as they were", "another camera", "dark", "blurred", "another camera of objects"],
)
def test_images_that_changed_are_told_by_what_changed(
    serve_bundle: Any, tmp_path: Path, bundle: Callable[[Path], Bundle], change: Change, named: set[str]
) -> None:
    made = bundle(tmp_path)
    served = serve_bundle(made, predictions={"folder": str(tmp_path / "log")})
    sent = [("file", ("a.png", file)) for file in photos(2, change)]
    for at in range(0, len(sent), 50):
        answer = served.client.post("/predict", files=sent[at : at + 50])
        assert answer.status_code == 200, answer.text
    served.runtime.log.close()
    name = made.document.name
    begun = _over_a_minute(tmp_path / "log")
    monitor = ModelMonitor(str(tmp_path / "log"), str(tmp_path / "bundles"), name, Rules())
    [report] = monitor.look(begun + timedelta(seconds=70))["versions"].values()
    assert report["inputs"]["image:width"]["rows"] == report["rows"] == 300
    assert {name for name in report["drifted"] if name.startswith("image")} == named
