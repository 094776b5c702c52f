"""One tuning from the data set to the served files: measured before and after, and in the form that costs little."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import Check, sha256_file
from contracts.engines.llamacpp import ADAPTER, SPEC, WEIGHTS, ChatSpec
from contracts.errors import PlatformError
from contracts.remote_engine import SAFETENSORS
from pipelines.task import Progress, problem_of

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.task import Task
    from pipelines.training.conversations import Example, Template
    from pipelines.training.llama_gguf import Base
    from pipelines.training.weight_files import WeightFiles

_CHARACTERS = 16  # of a token, at most but for rare ones: a longer answer is cut
_ASKED = 60  # validation prompts that are answered before, after, and in each form
_SHOWN = 3  # conversations whose masks the card shows
_GENERAL = Path(__file__).with_name("general.csv")


@dataclass(kw_only=True)
class Tuning:
    """What a tuning works with; `config` is one of `pipelines.recipes.chat.tuned`, or the one of `pretrained`.

    threads: of llama.cpp.  format: see `TunedModel`.
    """

    config: Any
    task: Task
    base: Base
    model: Any
    tokenizer: Any
    template: Template
    device: str
    valid: pd.DataFrame
    held: Sequence[Example]
    threads: int = 1
    format: str = ""


def run(config: Any, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
    """See `TaskConfig.train`."""
    import pandas as pd

    from pipelines.recipes.chat.weights import find_trainable
    from pipelines.training import chat_tuning
    from pipelines.training.conversations import Template, shown
    from pipelines.training.distributed import group
    from pipelines.training.llama_gguf import base_of

    chat_tuning.environment()
    chat_tuning.import_tuning()
    if config.lora.four_bits:
        chat_tuning.check_four_bits()
    base = base_of(find_trainable(config.model.weights))
    frames = {name: pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid")}
    model, tokenizer, device = chat_tuning.open_model(base.folder, config.training, config.lora, config.seed)
    template = Template(tokenizer, config.model.system)
    parts = config.examples(template, frames, dataset, progress)
    held = [one.chosen if isinstance(one, chat_tuning.Pair) else one for one in parts["valid"]]
    work = Tuning(
        config=config,
        task=task,
        base=base,
        model=model,
        tokenizer=tokenizer,
        template=template,
        device=device,
        valid=frames["valid"].head(_ASKED),
        held=held,
        threads=config.training.threads or 1,
        format=config.model.format,
    )
    leads = group().leads
    kept = checkpoints / "before.json"
    if leads and not kept.exists():
        checkpoints.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(_measured(work)))
    tuned = chat_tuning.tune(
        model,
        tokenizer,
        parts,
        config.training,
        device=device,
        seed=config.seed,
        checkpoints=checkpoints,
        progress=progress,
    )
    if not leads:
        return {"history": [], "parameters": {}, "device": device}
    if tuned.weights is not None:
        work.model = chat_tuning.open_model(base.folder, config.training, config.lora, config.seed)[0].eval()
        work.model.load_state_dict(tuned.weights)
    before, after = json.loads(kept.read_text()), _measured(work)
    learned = [one.chosen if isinstance(one, chat_tuning.Pair) else one for one in parts["train"]]
    tuning: dict[str, Any] = {
        "method": config.recipe,
        "base": base.digest,
        "rows": len(learned),
        "tokens": sum(len(one.ids) for one in learned),
        "learned": sum(sum(one.learned) for one in learned),
        "masks": [shown(tokenizer, one) for one in learned[:_SHOWN]],
        **{part: {name: [before[part][name], after[part][name]] for name in before[part]} for part in before},
        **config.origin(),
    }
    longest = config.model.max_tokens * _CHARACTERS
    form, choices = _write(work, out, longest, tuning)
    progress(config.training.epochs, config.training.epochs, doing="written", form=form)
    return {
        "engine": "llamacpp",
        "output": {"problem": "generation", "max_characters": longest},
        "decision": None,
        "history": tuned.history,
        "parameters": {
            "base": base.digest[:12],
            "weights": Path(config.model.weights).name,
            "window": config.model.window,
            "form": form,
            "rank": config.lora.rank,
            **config.origin(),
        },
        "device": device,
        "tolerance": config.model.tolerance,
        "choices": [choice.model_dump() for choice in choices],
        "tuning": tuning,
    }


def convert(config: Any, task: Task, dataset: Path, out: Path) -> dict[str, Any]:
    """Write a folder of transformers as ``model.gguf``, in the first of `model.forms` that costs little.

    Args:
        config: a `PretrainedChat`, whose validation rows and gate the form is chosen by, as after a tuning.

    Returns:
        The form, and the checks that chose it.

    Raises:
        PlatformError: ``code="bad_weights"``: it cannot be converted.
    """
    import pandas as pd

    from pipelines.training import chat_tuning
    from pipelines.training.conversations import Template, examples_of
    from pipelines.training.llama_gguf import base_of

    chat_tuning.environment()
    folder = Path(config.model.weights).expanduser()
    how = chat_tuning.TuningConfig(), chat_tuning.LoraConfig(rank=0)
    try:
        base = base_of(folder)
        model, tokenizer, device = chat_tuning.open_model(base.folder, *how, config.seed)
    except PlatformError as err:
        if err.code != "bad_weights":
            raise
        raise _not_converted(folder, err.detail.replace("is trained", "is converted")) from err
    template = Template(tokenizer, config.model.system)
    valid = pd.read_parquet(dataset / "valid.parquet").head(_ASKED)
    work = Tuning(
        config=config,
        task=task,
        base=base,
        model=model.eval(),
        tokenizer=tokenizer,
        template=template,
        device=device,
        valid=valid,
        held=examples_of(template, valid["prompt"].tolist(), valid["label"].tolist(), config.model.window),
    )
    longest = config.model.max_tokens * _CHARACTERS
    about = {"system": config.model.system, "window": config.model.window, "max_tokens": config.model.max_tokens}
    weights = _Weights(work)
    exact = weights.files()
    form, choices = _choose(work, weights, out, ChatSpec(**about, max_characters=longest), exact)
    _said(work, out, longest, check=True)
    return {"form": form, "choices": [choice.model_dump() for choice in choices]}


def _not_converted(folder: Path, detail: str) -> PlatformError:
    return PlatformError(
        f"weights cannot be converted to GGUF: {folder}",
        detail=detail,
        fix="give a whole folder of transformers, or a GGUF file of this model: --set model.weights=FILE",
        code="bad_weights",
    )


def _measured(work: Tuning) -> dict[str, dict[str, float]]:
    """The model as it is: on the validation answers, and on the general set."""
    from pipelines.training import conversations as by

    costs = by.losses(work.model, work.held, work.device)
    questions, texts = by.read_general(_GENERAL)
    return {
        "valid": {"bits_per_byte": by.bits_per_byte(costs, work.held), "perplexity": by.perplexity(costs, work.held)},
        "general": by.general_measures(work.model, work.tokenizer, questions, texts, work.device),
    }


def _write(work: Tuning, out: Path, longest: int, tuning: dict[str, Any]) -> tuple[str, list[Check]]:
    """The files that are served, with what they say to the validation prompts, before and after, in `tuning`."""
    model = work.config.model
    out.mkdir(parents=True, exist_ok=True)
    about = {"system": model.system, "window": model.window, "max_tokens": model.max_tokens, "max_characters": longest}
    weights = _Weights(work)
    with tempfile.TemporaryDirectory(prefix="tuning-") as name:
        began = Path(name) / "model"
        began.mkdir()
        (began / SPEC).write_text(ChatSpec(**about).model_dump_json(), encoding="utf-8")
        if work.config.lora.rank:
            form, choices = _write_adapter(work, weights, out)
            (began / WEIGHTS).symlink_to((out / WEIGHTS).resolve())
            spec = ChatSpec(**about, adapter=sha256_file(out / WEIGHTS))
        else:
            weights.began(began / WEIGHTS)
            form, choices = _choose(work, weights, out, ChatSpec(**about))
            spec = ChatSpec(**about)
        (out / SPEC).write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
        first, last = _said(work, began, longest), _said(work, out, longest, check=True)
    if model.safetensors:  # at the end: merging changes the model
        whole = work.model.merge_and_unload() if work.config.lora.rank else work.model
        whole.save_pretrained(out / SAFETENSORS, safe_serialization=True)
        work.tokenizer.save_pretrained(out / SAFETENSORS)
        _forget_paths(out / SAFETENSORS / "config.json", "_name_or_path")
    tuning["valid"] |= {key: [first[key], last[key]] for key in first}
    return form, choices


class _Weights:
    """The weights as they were and as they are, written in any form."""

    def __init__(self, work: Tuning) -> None:
        from pipelines.training.llama_fields import fields_of
        from pipelines.training.llama_gguf import open_gguf

        self._base = work.base
        self.config = json.loads((work.base.folder / "config.json").read_text(encoding="utf-8"))
        self.config.setdefault("num_key_value_heads", self.config["num_attention_heads"])
        self.tied = bool(self.config.get("tie_word_embeddings"))
        self._like: Any = open_gguf(work.base.file) if work.base.file else fields_of(work.base.folder, self.config)

    def began(self, file: Path, form: str = "f16") -> None:
        """The base: its own file, or what is made of its folder."""
        if self._base.file:
            shutil.copyfile(self._base.file, file)
        else:
            self.write(file, self.files(), form)

    def files(self) -> WeightFiles:
        """The base as it lies in its folder, tensor by tensor, without what a Llama of today has no place for."""
        from pipelines.training.weight_files import WeightFiles

        found = WeightFiles(self._base.folder)
        for name in list(found):
            if name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and self.tied):
                found.drop(name)
        return found

    def write(self, file: Path, weights: Mapping[str, Any], form: str) -> None:
        """`weights` as a file of `form`."""
        from pipelines.training.llama_gguf import write_gguf

        write_gguf(file, weights, self.config, form, self._like)


def _write_adapter(work: Tuning, weights: _Weights, out: Path) -> tuple[str, list[Check]]:
    """The base as it is, and beside it the matrices: as peft reads them, and as llama.cpp does."""
    from pipelines.training.llama_gguf import write_adapter

    folder = out / ADAPTER
    work.model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)
    _forget_paths(folder / "adapter_config.json")
    weights.began(out / WEIGHTS, "q8_0" if "q8_0" in work.config.model.forms else work.config.model.forms[-1])
    write_adapter(folder / "adapter.gguf", folder, weights.config, sha256_file(out / WEIGHTS))
    return "adapter", []


def _forget_paths(file: Path, name: str = "base_model_name_or_path") -> None:
    """Where the base was on this machine is nobody's business."""
    told = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**told, name: ""}, indent=1) + "\n", encoding="utf-8")


def _choose(
    work: Tuning, weights: _Weights, out: Path, spec: ChatSpec, exact: Mapping[str, Any] | None = None
) -> tuple[str, list[Check]]:
    """Write the first of `model.forms` that costs little: bits per byte of the validation answers, and the metric of
    the gate on them; the last one is taken in any case. exact: the weights; None: those of the model are copied."""
    import torch

    from pipelines.training.conversations import bits_per_byte, losses
    from pipelines.training.llama_gguf import rounded

    model, gate, forms = work.model, work.config.gate, work.config.model.forms
    places = {
        name: values for name, values in model.state_dict().items() if not (weights.tied and name == "lm_head.weight")
    }
    if exact is None:
        exact = {name: values.detach().cpu().float().numpy().copy() for name, values in places.items()}
    longest, file = spec.max_characters, out / WEIGHTS
    (out / SPEC).write_text(spec.model_dump_json(), encoding="utf-8")
    whole = bits_per_byte(losses(model, work.held, work.device), work.held)
    weights.write(file, exact, forms[-1])
    best = _said(work, out, longest)[gate.primary]
    checks: list[Check] = []
    for form in forms[:-1]:
        with torch.no_grad():
            for name, values in places.items():
                values.copy_(torch.from_numpy(rounded(name, exact[name], form)))
        bits = bits_per_byte(losses(model, work.held, work.device), work.held)
        limit = whole + gate.tuning.quantised_bits
        checks.append(_check(f"valid_bits_per_byte:{form}", "at most", bits, limit, bits <= limit))
        if not checks[-1].passed:
            continue
        weights.write(file, exact, form)
        value, least = _said(work, out, longest)[gate.primary], best - gate.int8_tolerance
        checks.append(_check(f"valid_{gate.primary}:{form}", "at least", value, least, value >= least))
        if checks[-1].passed:
            return form, checks
    weights.write(file, exact, forms[-1])
    return forms[-1], checks


def _check(metric: str, rule: str, value: float, limit: float, passed: bool) -> Check:
    return Check(metric=metric, rule=rule, value=value, limit=limit, passed=passed)


def _said(work: Tuning, folder: Path, longest: int, check: bool = False) -> dict[str, float]:
    """What a model folder answers to the validation prompts, by the engine that will serve it.

    check: also that llama.cpp reads the conversations as they were learned.
    """
    from contracts.engines import load_engine
    from pipelines.evaluation import get_evaluation, scoring

    task, config = work.task, work.config
    trained = {"engine": "llamacpp", "output": {"problem": "generation", "max_characters": longest}}
    fields = scoring.fields_of(task, config, {**trained, "decision": None, "parameters": {}})
    with tempfile.TemporaryDirectory(prefix="asked-") as name:
        (Path(name) / "model").symlink_to(folder.resolve())
        bundle = scoring.provisional(Path(name), fields)
        engine: Any = load_engine(bundle, threads=work.threads)
        try:
            if check:
                _check_reading(work, engine.process)
            answers = engine.predict({"prompt": work.valid["prompt"].to_numpy(object)})
        finally:
            engine.process.stop()
    output = bundle.document.signature.output
    evaluation = get_evaluation(problem_of(task))
    wanted = {"token_f1", "exact_match", config.gate.primary}
    measured = evaluation.measure_for(work.valid, answers, output, None, only=sorted(wanted))(None)
    found = {name: float(measured[name]) for name in sorted(wanted)}
    if work.format:
        fits = [bool(re.fullmatch(work.format, text.strip())) for text in answers]
        found["format"] = sum(fits) / max(1, len(fits))
    return found


def _check_reading(work: Tuning, process: Any) -> None:
    """Refuse weights whose tokens llama.cpp sees elsewhere than they were learned."""
    for example in work.held[:5]:
        text = example.before + example.answer
        asked = {"content": text, "add_special": False, "parse_special": True}
        theirs, ours = process.call("POST", "/tokenize", asked)["tokens"], example.ids
        if theirs != ours[: len(theirs)] or len(ours) - len(theirs) > 3:
            at = next(
                (at for at, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), len(theirs)
            )
            raise PlatformError(
                "llama.cpp cuts a conversation into other tokens than it was learned in",
                detail=f"from token {at}: {theirs[at : at + 5]} and {ours[at : at + 5]}",
                fix="give the GGUF of this model: --set model.weights=FILE",
                code="bad_weights",
            )
