"""What a request for images may say, as OpenAI's interface has it: what is wrong is refused, never changed."""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from contracts.drawing_engine import Wish
from contracts.problems.image import LARGEST_SEED, ImageOutput, classes_in
from services.errors import Problem
from services.settings import DrawingSettings

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_WORD = re.compile(r"[^\W_]+")


class ImageRequest(BaseModel):
    """The body of ``/v1/images/generations``; `seed`, `steps`, `guidance`, `visible_mark` and ``async`` are ours."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=32_000)]
    model: str | None = None
    n: int | None = Field(None, ge=1)
    size: str | None = Field(None, description='"auto", or WIDTHxHEIGHT, a whole multiple of the model\'s own size')
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png"] | None = None
    quality: Literal["auto", "standard"] | None = None
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto"] | None = None
    user: str | None = None  # is not used, and not kept
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED, description="of the first image, the others follow")
    steps: int | None = Field(None, ge=1)
    guidance: float | None = Field(None, ge=1)
    visible_mark: bool | None = Field(None, description="write the letters AI into the images")
    deferred: bool | None = Field(None, alias="async", description="answer at once, with a job to look at")


def parsed(document: Any) -> ImageRequest:
    """The request of a JSON document.

    Raises:
        Problem: 400, naming the member that is wrong; it repeats no value.
    """
    if type(document) is not dict:
        raise refused("", 'expected an object, such as {"prompt": "a fish"}')
    try:
        return ImageRequest.model_validate(document)
    except ValidationError as err:
        first = err.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))[:64]
        if first["type"] == "extra_forbidden":
            known = [field.alias or name for name, field in ImageRequest.model_fields.items()]
            raise refused(
                place, f"is no member of a request; accepted: {', '.join(known)}", "unknown_parameter"
            ) from None
        raise refused(place, str(first["msg"])) from None


def refused(param: str, message: str, code: str = "invalid_value") -> Problem:
    """400: a member of the request is wrong."""
    return Problem(400, code, "the request is not valid", errors=[(param or "(request)", message)])


class Policy:
    """What a service does not draw: classes and words."""

    def __init__(self, settings: DrawingSettings, output: ImageOutput) -> None:
        self._output, labels = output, output.labels
        self._words = {word.casefold() for text in settings.denied_words for word in _WORD.findall(text)}
        denied = {label.casefold() for label in settings.denied_labels}
        self._labels = {label for label in labels if label.casefold() in denied}
        # A model that takes any text may be asked for what is none of its classes, and yet denied by its name.
        self._named = (*labels, *(settings.denied_labels if output.any_text else ()))
        self._denied = self._labels | {name for name in self._named if name.casefold() in denied}
        self.labels = tuple(label for label in labels if label not in self._labels)

    def label(self, prompt: str) -> str:
        """The class that a prompt asks for.

        Raises:
            UnnamedError: it names none, or several, of those that are drawn.
            DeniedError: it asks for what is not drawn.
        """
        if self._words & {word.casefold() for word in _WORD.findall(prompt)}:
            raise DeniedError("has a word that this service does not take")
        if classes_in(prompt, self._named) & self._denied:
            raise DeniedError("asks for a class that this service does not draw")
        return self._output.label_of(prompt, self.labels)


class DeniedError(ValueError):
    """A prompt asks for what the settings forbid; its text repeats no value."""


def wishes_of(
    asked: ImageRequest,
    label: str,
    prompt: str,
    output: ImageOutput,
    usual: tuple[int, float],
    settings: DrawingSettings,
) -> list[Wish]:
    """The images that are asked for, of `usual` steps and guidance where the request does not say.

    Args:
        prompt: of the wishes, see `DrawingEngine.prompt_of`.

    Raises:
        Problem: 400, for more than the service or the model takes.
    """
    count = asked.n or 1
    if count > settings.max_images:
        raise refused("n", f"at most {settings.max_images} images are made for one request")
    steps = asked.steps or usual[0]
    if steps > output.max_steps:
        raise refused("steps", f"at most {output.max_steps} are taken")
    guidance = usual[1] if asked.guidance is None else asked.guidance
    if guidance > output.max_guidance:
        raise refused("guidance", f"at most {output.max_guidance:g} is taken")
    seed = secrets.randbelow(LARGEST_SEED - count) if asked.seed is None else asked.seed
    return [
        Wish(label=label, seed=(seed + at) % (LARGEST_SEED + 1), steps=steps, guidance=guidance, prompt=prompt)
        for at in range(count)
    ]


def factor_of(size: str | None, output: ImageOutput, most: int) -> int:
    """By how much images are enlarged for a size.

    Raises:
        Problem: 400, with sizes that are accepted.
    """
    if size in (None, "auto"):
        return 1
    found = _SIZE.fullmatch(str(size))
    wide, high = map(int, found.groups()) if found else (0, 0)
    factor = wide // output.width
    if (
        found
        and (wide, high) == (factor * output.width, factor * output.height)
        and 1 <= factor <= largest(output, most)
    ):
        return factor
    sizes = [f"{at * output.width}x{at * output.height}" for at in range(1, min(largest(output, most), 8) + 1)]
    raise refused("size", f"is not made by this model; accepted: auto, {', '.join(sizes)}", "unsupported_size")


def largest(output: ImageOutput, most: int) -> int:
    """The most that images are enlarged by."""
    return max(1, most // max(output.width, output.height))
