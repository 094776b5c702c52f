"""Models that draw by a folder of diffusers: a pipeline that is asked with class numbers or with text, on CPU or GPU.

The files of ``model/``: ``pipeline/`` (as ``DiffusionPipeline.save_pretrained`` writes it, weights as safetensors) and
``drawing.json`` (`DiffusersSpec`). Neither pickles nor code of the folder are read.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from contracts.bundle import Bundle
from contracts.document import Document
from contracts.drawing_engine import DrawingEngine, FlaggedError, Wish
from contracts.engine import EngineOptions, EngineSpec, refused
from contracts.errors import PlatformError
from contracts.problems.image import Drawn, UnnamedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC, FOLDER, INDEX = "drawing.json", "pipeline", "model_index.json"
_AT_ONCE = 8
_TAKEN = {".json", ".safetensors", ".txt", ".md"}  # endings of files


class DiffusersSpec(Document):
    """The content of ``drawing.json``.

    Attributes:
        steps, guidance: where a request does not say.  numbers: of each class of the model, the pipeline's number; of a
            pipeline that takes text ``prompts``, what it is asked with for each class.
        gpu_precision: of the weights on a GPU; on a CPU it is fp32.
    """

    format: Literal[1] = 1
    steps: int = Field(ge=1)
    guidance: float = Field(1.0, ge=1)
    numbers: tuple[int, ...] = ()
    prompts: tuple[str, ...] = ()
    gpu_precision: Literal["fp32", "bf16"] = "bf16"


def open_pipeline(folder: Path, device: str = "cpu", precision: str = "fp32") -> Any:
    """The pipeline of a folder.

    Raises:
        PlatformError: ``code="bad_weights"``: it has other files than weights and their settings, cannot be read, or is
            asked neither with class numbers nor with text alone.
    """
    if not (folder / INDEX).is_file():
        raise bad_weights(folder, f"{INDEX} is not there")
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix not in _TAKEN:
            raise bad_weights(folder, f"{file.relative_to(folder)} is none of {', '.join(sorted(_TAKEN))}")
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        found = DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            torch_dtype=kind,
            low_cpu_mem_usage=False,  # else it asks for one more library
        )
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, TypeError) as err:
        raise bad_weights(folder, (str(err).strip() or type(err).__name__).splitlines()[0]) from err
    asked = inspect.signature(found.__call__).parameters
    if "class_labels" not in asked and not ("prompt" in asked and "image" not in asked):
        kind_of = type(found).__name__
        raise bad_weights(
            folder, f"{kind_of} is asked neither with class numbers, like DiTPipeline, nor with text alone"
        )
    found.set_progress_bar_config(disable=True)
    return found.to(device)


def takes_text(pipeline: Any) -> bool:
    """Whether a pipeline of `open_pipeline` is asked with text, as StableDiffusionPipeline is."""
    return "class_labels" not in inspect.signature(pipeline.__call__).parameters


def bad_weights(folder: Path, detail: str) -> PlatformError:
    """The error for a folder that has no such pipeline."""
    return PlatformError(
        f"no usable pipeline in {folder}",
        detail=detail,
        fix="give a folder as diffusers saves a pipeline of classes or of text to image, with safetensors",
        code="bad_weights",
    )


class DiffusersEngine(DrawingEngine):
    """Serves a bundle of problem ``image`` by diffusers; see `contracts.engine.Engine`.

    `EngineOptions.device`: ``auto`` takes a GPU when there is one; else a name that torch knows.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        import torch

        super().__init__(bundle)
        try:
            self.spec = DiffusersSpec.model_validate_json((bundle.model_path / SPEC).read_bytes())
        except (OSError, ValidationError) as err:
            raise refused(bundle, str(err)) from err
        given = self.spec.prompts if self.output.any_text else self.spec.numbers
        if len(given) != len(self.output.labels):
            what = "prompts" if self.output.any_text else "numbers"
            raise refused(bundle, f"{SPEC} has {len(given)} {what} for {len(self.output.labels)} classes")
        torch.set_num_threads(options.threads)
        there = "cuda" if torch.cuda.is_available() else "cpu"
        device = there if options.device == "auto" else options.device
        precision = self.spec.gpu_precision if device.startswith("cuda") else "fp32"
        self._pipeline = open_pipeline(bundle.model_path / FOLDER, device, precision)
        if takes_text(self._pipeline) != self.output.any_text:
            raise refused(bundle, f"{type(self._pipeline).__name__} is asked otherwise than the signature says")
        # A copy, which is asked beside the pipeline's: that one is busy while it draws.
        self._tokens = copy.deepcopy(getattr(self._pipeline, "tokenizer", None)) if self.output.any_text else None
        self._counting = threading.Lock()

    def check(self, prompt: str) -> None:
        """Refuse a text with more tokens than the text encoder reads; see `DrawingEngine.check`."""
        if self._tokens is None:
            return
        most = int(self._tokens.model_max_length)
        with self._counting:
            found = len(self._tokens(prompt, truncation=False, verbose=False).input_ids)
        if found > most:
            raise UnnamedError(f"has {found} tokens with its ends; the model reads {most}")

    def evaluations(self, wish: Wish) -> int:
        """How often the network looks at one picture."""
        return wish.steps * (2 if wish.guidance > 1 else 1)

    def draw(self, wishes: Sequence[Wish], report: Callable[[int], None] | None = None) -> list[Drawn]:
        """The pictures, in their order; see `DrawingEngine.draw`."""
        made: dict[int, Drawn] = {}
        done = 0
        for steps, guidance in sorted({(one.steps, one.guidance) for one in wishes}):
            rows = [at for at, one in enumerate(wishes) if (one.steps, one.guidance) == (steps, guidance)]
            for start in range(0, len(rows), _AT_ONCE):
                some = [wishes[at] for at in rows[start : start + _AT_ONCE]]
                work = sum(map(self.evaluations, some))
                pixels = self._run(some, done, work, report)
                done += work
                for at, wish, image in zip(rows[start : start + _AT_ONCE], some, pixels, strict=True):
                    made[at] = self._drawn(image, wish, type(self._pipeline.scheduler).__name__)
        return [made[at] for at in range(len(wishes))]

    def _run(
        self, some: Sequence[Wish], done: int, work: int, report: Callable[[int], None] | None
    ) -> NDArray[np.uint8]:
        import torch

        scheduler, taken = self._pipeline.scheduler, 0
        step = scheduler.step

        def counted(*given: Any, **named: Any) -> Any:
            nonlocal taken
            taken = min(taken + 1, some[0].steps)
            if report is not None:
                report(done + round(work * taken / some[0].steps))
            return step(*given, **named)

        if self.output.any_text:
            asked = {
                "prompt": [one.prompt or self.spec.prompts[self.output.labels.index(one.label)] for one in some],
                "height": self.output.height,
                "width": self.output.width,
            }
        else:
            asked = {"class_labels": [self.spec.numbers[self.output.labels.index(one.label)] for one in some]}
        seeds = [torch.Generator("cpu").manual_seed(one.seed) for one in some]
        with self._turn, torch.inference_mode():
            scheduler.step = counted
            try:
                found = self._pipeline(
                    **asked,
                    guidance_scale=some[0].guidance,
                    generator=seeds,
                    num_inference_steps=some[0].steps,
                    output_type="np",
                )
            finally:
                del scheduler.step
        if any(getattr(found, "nsfw_content_detected", None) or ()):
            raise FlaggedError
        return np.clip(np.rint(np.asarray(found.images, np.float32) * 255), 0, 255).astype(np.uint8)


def load(bundle: Bundle, options: EngineOptions) -> DiffusersEngine:
    """See `contracts.engines.load_engine`."""
    return DiffusersEngine(bundle, options)


ENGINE = EngineSpec(
    name="diffusers",
    modality="drawing",
    extra="drawing,diffusion",
    image="VARIANT=gpu",
    batch_rows=8,
    golden=5,
    load=load,
)
