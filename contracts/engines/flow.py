"""Models that draw: an ONNX graph that says in which direction noise moves to become an image, followed step by step.

The files of ``model/``: ``model.onnx`` (float32 ``pixels`` (rows, channels, height, width) from -1 to 1, ``time``
(rows,) from 0, noise, to 1, data, and int64 ``label`` (rows,), the number of classes for none, to ``direction``) and
``flow.json`` (`FlowSpec`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from contracts.bundle import Bundle
from contracts.document import Document
from contracts.drawing_engine import DrawingEngine, Wish
from contracts.engine import EngineOptions, EngineSpec, onnx_providers, refused
from contracts.problems.image import Drawn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Direction = Callable[[Floats, float], Floats]  # of images at a time

SPEC = "flow.json"
WORKING_NUMBERS = 2_000_000  # numbers of pixels that one run of the graph may hold, over all its channels
_CHANNELS = 32  # about, of a network


class FlowSpec(Document):
    """The content of ``flow.json``: how images are sampled where a request does not say.

    Attributes:
        steps: of a picture.  method: ``heun`` asks the network twice a step but for the last, ``euler`` once.
        guidance: how far a picture is pushed towards its class and away from none; 1 not at all, and half the work.
        levels: values of a pixel up to the first become 0, and from the second on 255.
    """

    format: Literal[1] = 1
    steps: int = Field(ge=1)
    method: Literal["euler", "heun"] = "euler"
    guidance: float = Field(1.0, ge=1)
    levels: tuple[Annotated[int, Field(ge=0, lt=128)], Annotated[int, Field(ge=128, le=255)]] = (0, 255)


def follow(direction: Direction, noise: Floats, steps: int, method: str) -> Iterator[Floats]:
    """The images after each of `steps` equal steps from time 0 to 1; the last ones are the answer.

    Heun's method is that of T. Karras et al.: Elucidating the design space of diffusion-based generative models, 2022.
    """
    now = noise
    for step in range(steps):
        start, end = step / steps, (step + 1) / steps
        first = direction(now, start)
        then = now + (end - start) * first
        if method == "heun" and step + 1 < steps:
            then = now + (end - start) / 2 * (first + direction(then, end))
        now = then.astype(np.float32)
        yield now


def guided(
    run: Callable[[Floats, float, NDArray[np.int64]], Floats], label: NDArray[np.int64], none: int, push: Floats
) -> Direction:
    """The direction towards the class of each image, pushed as J. Ho, T. Salimans: Classifier-free diffusion guidance,
    2022.

    Args:
        run: the network, of images, time and class numbers.  none: the number of no class.
        push: guidance of each image, shape (rows,); 1 is none.
    """
    factor, nothing = push[:, None, None, None], np.full_like(label, none)

    def direction(images: Floats, time: float) -> Floats:
        towards = run(images, time, label)
        if not (push > 1).any():
            return towards
        away = run(images, time, nothing)
        found: Floats = away + factor * (towards - away)
        return found

    return direction


def pixels_of(images: Floats, levels: tuple[int, int] = (0, 255)) -> NDArray[np.uint8]:
    """Images from -1 to 1, channels first, as pixels, shape (rows, height, width, channels); see `FlowSpec.levels`."""
    pixels = np.clip(np.rint((images.transpose(0, 2, 3, 1) + 1) * 127.5), 0, 255).astype(np.uint8)
    found: NDArray[np.uint8] = np.where(pixels <= levels[0], 0, np.where(pixels >= levels[1], 255, pixels))
    return found.astype(np.uint8)


class FlowEngine(DrawingEngine):
    """Serves a bundle of problem ``image``; see `contracts.engine.Engine`. Calls of threads take turns by steps.

    Attributes:
        spec: how it was built to sample.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        import onnxruntime as ort

        super().__init__(bundle)
        try:
            self.spec = FlowSpec.model_validate_json((bundle.model_path / SPEC).read_bytes())
        except (OSError, ValidationError) as err:
            raise refused(bundle, str(err)) from err
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = onnx_providers(ort.get_available_providers())
        self._session = ort.InferenceSession(str(bundle.model_path / "model.onnx"), options, providers=providers)
        if {item.name for item in self._session.get_inputs()} != {"pixels", "time", "label"}:
            raise refused(bundle, "model.onnx has other inputs than pixels, time and label")
        output = self.output
        self._shape = (len(output.mode), output.height, output.width)
        self.at_once = max(1, WORKING_NUMBERS // (_CHANNELS * output.width * output.height))

    def draw(self, wishes: Sequence[Wish], report: Callable[[int], None] | None = None) -> list[Drawn]:
        """The pictures, in their order; those with the same steps are drawn together.

        Args:
            report: is told the evaluations of the network (`evaluations`) that are done, and may raise to end it.
        """
        made: dict[int, Drawn] = {}
        done = 0
        for steps in sorted({one.steps for one in wishes}):
            rows = [at for at, one in enumerate(wishes) if one.steps == steps]
            for start in range(0, len(rows), self.at_once):
                some = rows[start : start + self.at_once]
                group = [wishes[at] for at in some]
                each = sum(map(self.evaluations, group)) / steps
                images: Floats = np.zeros((0, *self._shape), np.float32)
                for step, now in enumerate(self._steps(group, steps), 1):
                    images = now
                    if report is not None:
                        report(round(done + each * step))
                done += round(each * steps)
                for place, at in enumerate(some):
                    made[at] = self._finished(images[place : place + 1][0], wishes[at])
        return [made[at] for at in range(len(wishes))]

    def evaluations(self, wish: Wish) -> int:
        """How often the network looks at one picture until it is done: what it costs."""
        looks = 2 * wish.steps - 1 if self.spec.method == "heun" else wish.steps
        return looks * (2 if wish.guidance > 1 else 1)

    def _steps(self, group: Sequence[Wish], steps: int) -> Iterator[Floats]:
        label = np.array([self.output.labels.index(one.label) for one in group], np.int64)
        pushed = np.array([one.guidance for one in group], np.float32)
        noise = np.stack([
            np.random.default_rng(one.seed).standard_normal(self._shape, dtype=np.float32) for one in group
        ])  # fmt: skip
        return follow(guided(self._run, label, len(self.output.labels), pushed), noise, steps, self.spec.method)

    def _run(self, images: Floats, time: float, label: NDArray[np.int64]) -> Floats:
        given = {"pixels": images, "time": np.full(len(images), time, np.float32), "label": label}
        with self._turn:
            found: Floats = self._session.run(["direction"], given)[0]
        return found

    def _finished(self, image: Floats, wish: Wish) -> Drawn:
        return self._drawn(pixels_of(image[None], self.spec.levels)[0], wish, self.spec.method)


def load(bundle: Bundle, options: EngineOptions) -> FlowEngine:
    """See `contracts.engines.load_engine`."""
    return FlowEngine(bundle, options.threads)


ENGINE = EngineSpec(name="flow", modality="drawing", extra="drawing", load=load, batch_rows=64, golden=5)
