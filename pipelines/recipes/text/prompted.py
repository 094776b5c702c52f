"""Recipe `prompted`: texts that a chat model behind OpenAI's interface writes by a prompt; nothing is trained."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.text.settings import SplitConfig, TextConfig, TextTaskConfig
from pipelines.task import STRICT, Progress

if TYPE_CHECKING:
    from contracts.engines.prompted import PromptedSpec
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PromptedModel:
    """Who is asked, and what.

    url: of OpenAI's interface, with /v1; the key, if it needs one, is in the variable FAIRLEAD_PROMPTED_KEY, where the
    service runs too.  model: its name there; "" is the one that the prompt names.
    prompt: file with a prompt document, as ``fairlead prompts show NAME --json`` prints one; "" is `template`.
    template: the message, with the task's fields in braces, or {text} for all of them.  system: the system message.
    max_tokens: of an answer, where the prompt does not say.  max_characters: of an answer.
    seconds: for one answer.  at_once: requests.
    tolerance: share of characters that may be others when it is asked the same again, see the golden examples.
    """

    url: str = ""
    model: str = ""
    prompt: str = ""
    template: str = "Summarise the text in one or two sentences, in its own language.\n\n{text}"
    system: str = ""
    max_tokens: Annotated[int, Field(ge=1)] = 256
    max_characters: Annotated[int, Field(ge=1)] = 8_000
    seconds: Annotated[float, Field(gt=0)] = 60.0
    at_once: Annotated[int, Field(ge=1, le=64)] = 4
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.2


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PromptedText(TextTaskConfig):
    """A chat model and a prompt; of `text` only `max_characters` applies."""

    text: TextConfig = field(default_factory=lambda: TextConfig(max_characters=20_000))
    split: SplitConfig = field(default_factory=lambda: SplitConfig(valid_share=0.1, test_share=0.5))
    model: PromptedModel = field(default_factory=PromptedModel)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Write what the engine reads, after one validation row was answered."""
        import pandas as pd

        from contracts.engines import load_engine
        from contracts.engines.prompted import FILE
        from pipelines.evaluation.scoring import fields_of, provisional

        spec = _spec(self)
        out.mkdir(parents=True, exist_ok=True)
        (out / FILE).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        found: dict[str, Any] = {
            "engine": "prompted",
            "output": {"problem": "generation", "max_characters": self.model.max_characters, "says_cut": True},
            "decision": None,
            "history": [],
            "parameters": {
                "url": spec.url, "model": spec.model, "prompt": spec.prompt, "prompt_version": spec.version,
            },
            "tolerance": self.model.tolerance,
            "device": "none",
        }  # fmt: skip
        rows = pd.read_parquet(dataset / "valid.parquet")[:1]
        engine = load_engine(provisional(out.parent, fields_of(task, self, found)))
        engine.predict({item.name: rows[item.name].to_numpy(object) for item in task.inputs(self)})
        progress(1, 1)
        return found


def _spec(config: PromptedText) -> PromptedSpec:
    from contracts.engines.prompted import PromptedSpec

    wanted = config.model
    prompt: dict[str, Any] = _document(Path(wanted.prompt).expanduser()) if wanted.prompt else {}
    name = wanted.model or str(prompt.get("model", ""))
    for key, value in (("url", wanted.url), ("model", name)):
        if not value:
            raise _wrong(f"the recipe prompted has no model.{key}", "a chat model behind OpenAI's interface answers")
    if not wanted.url.startswith(("http://", "https://")):
        raise _wrong(f"model.url {wanted.url!r} is no address", "it begins with http:// or https://")
    return PromptedSpec(
        url=wanted.url,
        model=name,
        prompt=prompt.get("name", ""),
        version=prompt.get("version", ""),
        template=prompt.get("template", wanted.template),
        system=prompt.get("system", wanted.system),
        options={"temperature": 0, "max_tokens": wanted.max_tokens, **prompt.get("options", {})},
        max_characters=config.text.max_characters,
        seconds=wanted.seconds,
        at_once=wanted.at_once,
    )


def _document(file: Path) -> dict[str, Any]:
    """A prompt of a file, with its version."""
    import yaml

    from contracts.prompts import parse_prompt

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise _wrong(f"model.prompt cannot be read: {file}", " ".join(str(err).split())) from err
    if isinstance(found, dict):
        found.pop("version", None)  # which `fairlead prompts show` adds
    document = parse_prompt(found, str(file))
    return {**document.model_dump(mode="json"), "version": document.version}


def _wrong(what: str, detail: str) -> PlatformError:
    return PlatformError(
        what,
        detail=detail,
        fix="--set model.url=https://HOST/v1 --set model.model=NAME --set model.prompt=FILE",
        code="bad_config",
    )
