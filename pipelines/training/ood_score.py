"""The score of a graph that says how far an image is from those that it has learned from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.images import ImageSpec

    Floats = NDArray[np.float64]

_BATCH, _LEARNED = 64, 5_000  # training images that show where their classes lie, evenly from all


def add_ood_score(
    file: Path,
    spec: ImageSpec,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    held: NDArray[np.uint8],
    refused: float,
) -> dict[str, float]:
    """Give the graph of a classifier the output `OOD`, see `contracts.out_of_distribution`.

    It is the sum of two: the energy, minus the log of the sum of exponentials of the scores of the classes (W. Liu et
    al.: Energy-based out-of-distribution detection, 2020), and minus the cosine to the nearest mean of a class (K. Lee
    et al., 2018, measure a distance there), of features that `show_vector` shows. Each counts from its median over the
    validation images to what one in a hundred of them is beyond.

    Args:
        pixels, labels: of the training images.  held: of the validation images, from which the limits are.
        refused: share of the validation images that are beyond 1.

    Returns:
        Parameters of the bundle.
    """
    import numpy as np

    step = max(1, len(pixels) // _LEARNED)
    logits, vectors = _outputs(file, spec, held)
    parts, means = [_energy(logits)], None
    if vectors is not None:
        learned = _outputs(file, spec, pixels[::step])[1]
        known, of = _unit(np.asarray(learned)), labels[::step]
        means = _unit(np.stack([known[of == at].mean(axis=0) for at in np.unique(of)]))
        parts.append(-(_unit(vectors) @ means.T).max(axis=1))
    scaled = [_scale(part, 0.01) for part in parts]
    whole = sum((part * factor + shift for part, (factor, shift) in zip(parts, scaled, strict=True)), np.zeros(1))
    factor, shift = _scale(whole, refused)
    weights = [one * factor for one, _ in scaled]
    offset = sum(one for _, one in scaled) * factor + shift
    _append(file, weights, offset, means)
    return {"ood_refused": refused}


def _scale(values: Floats, share: float) -> tuple[float, float]:
    """Factor and shift after which the median is 0, and the value that `share` of them is beyond is 1."""
    import numpy as np

    middle, end = float(np.median(values)), float(np.quantile(values, 1 - share, method="higher"))
    width = max(end - middle, 1e-3)  # less is what float32 varies by
    return 1 / width, -middle / width


def _energy(logits: Floats) -> Floats:
    import numpy as np

    most: Floats = logits.max(axis=1)
    found: Floats = -(most + np.log(np.exp(logits - most[:, None]).sum(axis=1)))
    return found


def _unit(vectors: Floats) -> Floats:
    import numpy as np

    found: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return found


def _outputs(file: Path, spec: ImageSpec, pixels: NDArray[np.uint8]) -> tuple[Floats, Floats | None]:
    """Scores of the classes, and vectors where the graph has them."""
    import numpy as np
    import onnxruntime as ort

    from contracts.engine import VECTOR

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    there = [item.name for item in session.get_outputs()]
    names = ["probabilities", *([VECTOR] if VECTOR in there else [])]
    found = [
        session.run(names, {spec.input: spec.normalised(pixels[at : at + _BATCH])})
        for at in range(0, len(pixels), _BATCH)
    ]
    logits, *vectors = (np.concatenate(part).astype(np.float64) for part in zip(*found, strict=True))
    return logits, vectors[0] if vectors else None


def _append(file: Path, weights: list[float], offset: float, means: Floats | None) -> None:
    """Compute the score in the graph, by operators that all its versions since 13 write alike."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from contracts.engine import VECTOR
    from contracts.out_of_distribution import OOD

    model = onnx.load(str(file))
    graph: Any = model.graph

    def constant(name: str, values: Any, kind: Any = np.float32) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), f"ood_{name}"))
        return f"ood_{name}"

    def node(kind: str, given: list[str], made: str, **said: Any) -> str:
        graph.node.append(helper.make_node(kind, given, [made], **said))
        return made

    # The log of the sum of exponentials is what any score is above its log-softmax.
    node("LogSoftmax", ["probabilities"], "ood_log", axis=1)
    node("Sub", ["probabilities", "ood_log"], "ood_sums")
    node("Gather", ["ood_sums", constant("first", [0], np.int64)], "ood_sum", axis=1)
    total = node("Mul", ["ood_sum", constant("energy", [-weights[0]])], "ood_energy_part")
    if means is not None:
        node("LpNormalization", [VECTOR], "ood_unit", axis=1, p=2)
        node("MatMul", ["ood_unit", constant("means", means.T)], "ood_cosines")
        graph.node.append(
            helper.make_node("TopK", ["ood_cosines", constant("one", [1], np.int64)], ["ood_cosine", "ood_at"], axis=1)
        )
        part = node("Mul", ["ood_cosine", constant("angle", [-weights[1]])], "ood_angle_part")
        total = node("Add", [total, part], "ood_both")
    node("Add", [total, constant("offset", [offset])], OOD)
    graph.output.append(helper.make_tensor_value_info(OOD, TensorProto.FLOAT, ["rows", 1]))
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())
