"""Pretrained networks of images: a graph of ONNX, whose features are taken as they are, or a folder of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.io.weights import WEIGHTS, weights_here

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.images import ImageSpec
    from pipelines.training.pictures import Pictures

GRAPH = "model.onnx"
_ROWS = 64


@contextmanager
def backbone_here(source: str) -> Iterator[Path]:
    """The file ``model.onnx``, or the folder with ``model.safetensors``, that `source` names.

    Raises:
        PlatformError: ``code="bad_weights"``: it has neither.
    """
    if not source:
        raise PlatformError(
            "this recipe starts from pretrained weights, and none are named",
            fix="--set model.backbone=FOLDER, with model.onnx or config.json and model.safetensors",
            code="bad_config",
        )
    with weights_here(source, (GRAPH, WEIGHTS)) as weights:
        graph = weights.folder / GRAPH
        if graph.exists():
            yield graph
        elif (weights.folder / WEIGHTS).exists() and (weights.folder / "config.json").exists():
            yield weights.folder
        else:
            raise _bad(weights.folder, f"it has neither {GRAPH} nor config.json and {WEIGHTS}")


def read_graph(file: Path, features: str, spec: ImageSpec) -> Any:
    """A graph whose one output is the features, shape (rows, features).

    Args:
        features: name of a value in the graph; "" is its first output. Of rows and columns the mean is taken.

    Raises:
        PlatformError: ``code="bad_weights"``: it cannot be read, does not take such pixels, or has no such value.
    """
    import onnx
    from onnx import helper

    try:
        model = onnx.load(str(file))
        onnx.checker.check_model(model)
    except Exception as err:
        raise _bad(file, f"it is no graph: {str(err)[:200]}") from err
    graph = model.graph
    weights = {item.name for item in graph.initializer}
    given = [item for item in graph.input if item.name not in weights]
    channels = len(spec.mode)
    sides = [channels, spec.height, spec.width]
    shape = [one.dim_value for one in given[0].type.tensor_type.shape.dim] if len(given) == 1 else []
    if len(shape) != 4 or any(there not in (0, wanted) for there, wanted in zip(shape[1:], sides, strict=True)):
        raise _bad(file, f"its input is {shape or 'not one'}, the images are rows of {sides}: see image.*")
    name = features or graph.output[0].name
    made = {output for node in graph.node for output in node.output}
    if name not in made:
        raise _bad(file, f"it has no value {name!r}; its last ones: {', '.join(sorted(made)[-8:])}")
    given[0].type.tensor_type.shape.dim[0].dim_param = "rows"
    model = onnx.shape_inference.infer_shapes(model)
    graph, nodes = model.graph, []
    rank = _rank(graph, name)
    if rank == 4:
        nodes.append(helper.make_node("ReduceMean", [name], ["features_mean"], axes=[2, 3], keepdims=0))
    elif rank != 2:
        raise _bad(file, f"its value {name!r} has {rank} dimensions; features have two, or four with rows and columns")
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("features_mean" if nodes else name, 1, ["rows", None]))
    return model


def mirrored_too(model: Any) -> Any:
    """A graph of features, see `read_graph`, that answers with the mean of those of an image and of its mirror image.

    Raises:
        PlatformError: ``code="bad_weights"``: its operators are those before version 10.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    if max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx")) < 10:
        raise PlatformError(
            "an old graph cannot answer for mirror images too",
            detail="its operators are of a version before 10 of ONNX's operator set",
            fix="convert it with onnx.version_converter, or --set model.mirror=false",
            code="bad_weights",
        )
    graph = model.graph
    weights = {item.name for item in graph.initializer}
    pixels, features = next(item.name for item in graph.input if item.name not in weights), graph.output[0].name
    numbers = {"minus": [-1], "zero": [0], "one": [1], "three": [3], "first": [2**31 - 1], "past": [-(2**31) + 1]}
    for name, values in numbers.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), f"mirror_{name}"))
    graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "mirror_half"))

    def node(kind: str, given: str, made: str, **said: Any) -> Any:
        return helper.make_node(kind, given.split(), [made], **said)

    for one in graph.node:
        one.input[:] = ["mirror_both" if name == pixels else name for name in one.input]
    flipped = "mirror_first mirror_past mirror_three mirror_minus"
    before = [
        node("Slice", f"{pixels} {flipped}", "mirror_image"),
        node("Concat", f"{pixels} mirror_image", "mirror_both", axis=0),
        node("Shape", pixels, "mirror_sizes"),
        node("Slice", "mirror_sizes mirror_zero mirror_one", "mirror_rows"),
    ]
    after = [
        node("Slice", f"{features} mirror_zero mirror_rows mirror_zero", "mirror_seen"),
        node("Slice", f"{features} mirror_rows mirror_first mirror_zero", "mirror_turned"),
        node("Add", "mirror_seen mirror_turned", "mirror_sum"),
        node("Mul", "mirror_sum mirror_half", "mirror_mean"),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.append(helper.make_tensor_value_info("mirror_mean", 1, ["rows", None]))
    return model


def _rank(graph: Any, name: str) -> int:
    for item in (*graph.value_info, *graph.output):
        if item.name == name:
            return len(item.type.tensor_type.shape.dim)
    return 0


def features_of(model: Any, spec: ImageSpec, pictures: Pictures, progress: Any) -> NDArray[np.float64]:
    """Features of images, shape (rows, features)."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    [item] = session.get_inputs()
    found, rows = [], len(pictures.pixels)
    for at in range(0, rows, _ROWS):
        found.append(session.run(None, {item.name: spec.normalised(pictures.pixels[at : at + _ROWS])})[0])
        progress(min(at + _ROWS, rows), rows)
    return np.concatenate(found).astype(np.float64)


def with_linear(model: Any, weights: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[bytes, str]:
    """The graph of features followed by a linear layer, weights of shape (features, classes); and its input's name."""
    import numpy as np
    from onnx import helper, numpy_helper

    graph = model.graph
    for name, values in (("linear_weights", weights), ("linear_bias", bias)):
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    features = graph.output[0].name
    graph.node.append(helper.make_node("Gemm", [features, "linear_weights", "linear_bias"], ["probabilities"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("probabilities", 1, ["rows", weights.shape[1]]))
    known = {item.name for item in graph.initializer}
    content: bytes = model.SerializeToString()
    return content, next(item.name for item in graph.input if item.name not in known)


def pretrained_body(folder: Path) -> Any:
    """The network of a folder that transformers saved, without its head. No code of the folder is run.

    Raises:
        PlatformError: ``code="bad_weights"``: it cannot be read, or lacks weights.
    """
    from pipelines.training.pretrained import import_transformers

    transformers = import_transformers()
    from safetensors import SafetensorError

    try:
        body, about = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as err:
        raise _bad(folder, f"transformers cannot read it: {str(err)[:300]}") from err
    if lacking := [name for name in about["missing_keys"] if "pooler" not in name]:
        raise _bad(folder, f"it has no weights for {', '.join(sorted(lacking)[:3])} ({len(lacking)} in all)")
    return body


def pretrained_maps(folder: Path, spec: ImageSpec, most: int = 32) -> tuple[Any, list[int]]:
    """What a network of a folder says of the places of an image: pixels to maps at strides 4, 8 and so on, up to `most`
    as far as it has them, and their channels.

    Raises:
        PlatformError: ``code="bad_weights"``: it cannot be read, has no such maps, or does not take such pixels.
    """
    import torch
    from torch import nn

    body, sides = pretrained_body(folder), (spec.height, spec.width)
    try:
        with torch.no_grad():
            states = body(torch.zeros(2, len(spec.mode), *sides), output_hidden_states=True).hidden_states
    except (RuntimeError, ValueError, TypeError, AttributeError) as err:
        raise _bad(folder, f"it does not take images of {spec.width}x{spec.height}: {str(err)[:200]}") from err
    shapes = [tuple(one.shape[1:]) for one in states]
    last = {  # of each stride the last map
        sides[0] // shape[1]: at
        for at, shape in enumerate(shapes)
        if len(shape) == 3 and sides[0] % shape[1] == 0 and sides[1] == sides[0] // shape[1] * shape[2]
    }
    strides = [4]
    while strides[-1] * 2 in last and strides[-1] < most:
        strides.append(strides[-1] * 2)
    if 4 not in last or len(strides) < 2:
        raise _bad(folder, f"its maps have strides {sorted(last) or 'none'}, expected 4, 8 and so on")
    chosen = [last[stride] for stride in strides]

    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, pixels: Any) -> list[Any]:
            found = self.body(pixels, output_hidden_states=True).hidden_states
            return [found[at] for at in chosen]

    return Maps(), [int(shapes[at][0]) for at in chosen]


def pretrained_network(folder: Path, spec: ImageSpec, classes: int) -> Any:
    """A network of a folder that transformers saved, without its head: pixels to logits by a new linear layer.

    ``body`` are the pretrained layers, ``head`` the new one.

    Raises:
        PlatformError: ``code="bad_weights"``: it cannot be read, or does not take such pixels.
    """
    import torch
    from torch import nn

    body = pretrained_body(folder)

    class Pretrained(nn.Module):
        head: nn.Module

        def __init__(self) -> None:
            super().__init__()
            self.body = body
            self.head: Any = nn.Identity()

        def features(self, pixels: Any) -> Any:
            states = self.body(pixels).last_hidden_state
            return states.mean(dim=(2, 3)) if states.ndim == 4 else states[:, 0]

        def forward(self, pixels: Any) -> Any:
            return self.head(self.features(pixels))

    network = Pretrained()
    try:
        with torch.no_grad():
            width = network.eval().features(torch.zeros(1, len(spec.mode), spec.height, spec.width)).shape[1]
    except (RuntimeError, ValueError, TypeError, AttributeError) as err:
        raise _bad(folder, f"it does not take images of {spec.width}x{spec.height}: {str(err)[:200]}") from err
    network.head = nn.Linear(width, classes)
    return network


def _bad(place: Path, detail: str) -> PlatformError:
    return PlatformError(
        f"no usable backbone: {place}",
        detail=detail,
        fix="give a folder with model.onnx, or one with config.json and model.safetensors; and image.* that fits it",
        code="bad_weights",
    )
