"""Tuning of chat models by trl and peft: supervised (SFT), matrices of low rank (LoRA, QLoRA), preferences (DPO)."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from contracts.errors import PlatformError
from pipelines.search_space import Dimension
from pipelines.task import STRICT, Progress
from pipelines.training.conversations import Example
from pipelines.training.device import import_torch, resolve_device
from pipelines.training.distributed import group

_COMPLETE = "trainer_state.json"  # what a checkpoint gets last
_QUIET = ("transformers", "trl", "peft", "accelerate", "datasets")


@settings(frozen=True, kw_only=True, config=STRICT)
class TuningConfig:
    """How a chat model is tuned.

    batch_size: conversations of a step; with `packing`, rows of `max_tokens` that conversations are put into.
    warmup: share of the steps in which the learning rate rises; afterwards it falls to zero.
    packing: put short conversations together into one row; none sees another one.
    max_tokens: of a conversation; longer ones are refused.
    precision: ``auto`` is bf16 on a GPU and fp32 on a CPU; in bf16 the weights stay fp32 and products are bf16.
    gradient_checkpointing: compute activations twice, and keep few of them.
    sharded: of several processes (`torchrun`) each keeps a part of the weights, gradients and optimiser (FSDP2, Zhao et
    al. 2023), for models that one GPU cannot hold; otherwise each has all of them, and they share the batches.
    beta: of DPO, how dear it is to go away from the base.
    threads: of the processor, for each process; 0 is as many as torch takes, which is all, or OMP_NUM_THREADS.
    """

    epochs: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Annotated[int, Field(ge=16)] = 512
    packing: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    sharded: bool = False
    beta: Annotated[float, Field(gt=0)] = 0.1
    device: str = "auto"
    threads: Annotated[int, Field(ge=0)] = 0

    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "learning_rate": Dimension(low=2e-5, high=1e-3, log=True),
        "batch_size": Dimension(low=4, high=16, log=True),
    }


@settings(frozen=True, kw_only=True, config=STRICT)
class LoraConfig:
    """Matrices of low rank beside the layers of a model that stays as it is (Hu et al. 2021).

    rank: 0 trains all weights instead.  alpha: the product of the matrices counts alpha / rank times.
    targets: layers that get matrices, of those that llama.cpp takes adapters for.
    four_bits: keep the base in 4 bits meanwhile (QLoRA, Dettmers et al. 2023); needs a GPU.
    """

    rank: Annotated[int, Field(ge=0, le=256)] = 8
    alpha: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    targets: tuple[
        Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], ...
    ] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # fmt: skip
    four_bits: bool = False


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What DPO learns from: the same prompt with a better and a worse answer."""

    chosen: Example
    rejected: Example


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a tuning leaves.

    history: one dict per epoch: epoch, train_loss, valid_loss and, of DPO, accuracy: how often the better answer is
        ahead.
    weights: by name, on the CPU, where processes have parts of them only; None where the model itself has them.
    """

    history: list[dict[str, float]]
    weights: dict[str, Any] | None = None


def import_tuning() -> None:
    """Check that what tunes is installed.

    Raises:
        PlatformError: ``code="missing_package"``.
    """
    import_torch()
    for name in ("transformers", "trl", "peft", "datasets", "accelerate", "gguf"):
        if importlib.util.find_spec(name) is None:
            raise PlatformError(
                f"{name} is not installed",
                detail="chat models are tuned with trl and peft",
                fix="pip install 'fairlead[finetune]'",
                code="missing_package",
            )
    warnings.filterwarnings("ignore", module="|".join(_QUIET))
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def check_four_bits() -> None:
    """Refuse a base in 4 bits where it cannot be had.

    Raises:
        PlatformError: ``code="no_device"`` without a GPU of CUDA, ``code="missing_package"`` without bitsandbytes.
    """
    torch = import_torch()
    other = "train matrices over the whole base: --recipe lora"
    if not torch.cuda.is_available():
        raise PlatformError(
            "a base in 4 bits (QLoRA) needs a GPU with CUDA, and there is none here",
            detail="bitsandbytes has no such kernels for a CPU",
            fix=other,
            code="no_device",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PlatformError(
            "bitsandbytes is not installed",
            detail="it keeps a base in 4 bits (QLoRA)",
            fix=f"pip install bitsandbytes, or {other}",
            code="missing_package",
        )


def open_model(folder: Path, config: TuningConfig, lora: LoraConfig, seed: int) -> tuple[Any, Any, str]:
    """Model, tokenizer and device; with a rank, the model has matrices that change nothing yet.

    Raises:
        PlatformError: ``code="bad_weights"``: the folder has no model that transformers reads, or not all of it.
    """
    import_tuning()
    if lora.four_bits:
        check_four_bits()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    set_seed(seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    more: dict[str, Any] = {}
    if lora.four_bits:
        transformers: Any = importlib.import_module("transformers")
        more["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    try:
        how = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True, **more}
        loaded: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, **how)
        model, told = loaded
        if left := sorted(told["missing_keys"]):  # transformers goes on with random numbers
            raise ValueError(f"its weights have no tensor {left[0]}, of {len(left)} that are missing")
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as err:
        from pipelines.training.llama_gguf import refused

        raise refused(folder, str(err).splitlines()[0]) from err
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if lora.rank:
        peft: Any = importlib.import_module("peft")
        if lora.four_bits:
            model = peft.prepare_model_for_kbit_training(model)
        model = peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=lora.rank,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=list(lora.targets),
                task_type="CAUSAL_LM",
            ),
        )
    return (model if lora.four_bits else model.to(device)), tokenizer, device


def tune(
    model: Any,
    tokenizer: Any,
    parts: Mapping[str, Sequence[Any]],
    config: TuningConfig,
    *,
    device: str,
    seed: int,
    checkpoints: Path,
    progress: Progress,
) -> Tuned:
    """Tune `model` in place, ending with the weights of the epoch with the least loss on ``valid``.

    Args:
        parts: ``train`` and ``valid``; of `Example` for SFT, of `Pair` for DPO.
        checkpoints: of every epoch, from whose last whole one a killed run goes on.

    Returns:
        The history, and of a model that was sharded the whole weights, in process 0.
    """
    pairs = isinstance(parts["train"][0], Pair)
    from datasets import Dataset, disable_progress_bars

    trl: Any = importlib.import_module("trl")
    disable_progress_bars()
    bf16 = config.precision == "bf16" or (config.precision == "auto" and device.startswith("cuda"))
    here = group()
    folder = _shared(checkpoints / "tuning")
    both: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": max(1, config.batch_size // here.size),
        "per_device_eval_batch_size": 8,
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": config.warmup,  # below 1, a share of all
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.clip,
        "max_length": config.max_tokens,
        "bf16": bf16,
        "gradient_checkpointing": config.gradient_checkpointing,
        "seed": seed,
        "use_cpu": not device.startswith("cuda"),
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "logging_strategy": "epoch",
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": device.startswith("cuda"),
    }
    sharded = config.sharded and here.size > 1
    if here.size > 1:
        both["ddp_backend"] = "nccl" if device.startswith("cuda") else "gloo"
    if sharded:  # parts of weights are no checkpoint; the best whole ones are kept in memory
        both |= {"save_strategy": "no", "load_best_model_at_end": False}
    told: dict[str, Any] = {"processing_class": tokenizer, "callbacks": [_teller(progress, config.epochs)]}
    if pairs:
        rows: Any = {name: Dataset.from_list([_preference(one) for one in part]) for name, part in parts.items()}
        trainer: Any = trl.DPOTrainer(
            model=model,
            args=trl.DPOConfig(**both, beta=config.beta),
            train_dataset=rows["train"],
            eval_dataset=rows["valid"],
            **told,
        )
    else:
        rows = {
            name: Dataset.from_list([{"input_ids": one.ids, "labels": one.labels} for one in part])
            for name, part in parts.items()
        }
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(**both, packing=config.packing, eval_packing=False),
            train_dataset=rows["train"],
            eval_dataset=rows["valid"],
            **told,
        )
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    weights = None
    if sharded:
        keeper = _keeper(model)
        trainer.add_callback(keeper)
        _shard(trainer, model, bf16)
        trainer.train()
        weights = keeper.best
    else:
        last = _last_whole(folder)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    return Tuned(history=_history(trainer.state.log_history), weights=weights)


def _shared(folder: Path) -> Path:
    """The checkpoints of process 0, from which all go on together; one's own where not all processes see them."""
    here = group()
    folder.mkdir(parents=True, exist_ok=True)
    if here.size == 1:
        return folder
    theirs = Path(here.hand_out({"folder": str(folder.resolve())})["folder"])
    return theirs if here.sum(float(theirs.is_dir())) == here.size else folder


def _layers(model: Any) -> list[Any]:
    """The layers of a transformer, each of which is put together from its parts while it computes."""
    from torch import nn

    return [layer for part in model.modules() if isinstance(part, nn.ModuleList) for layer in part]


def _shard(trainer: Any, model: Any, bf16: bool) -> None:
    """Leave each process its part of every layer; accelerate, which shards on GPUs alone, is to let the model be."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    halves = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = halves if bf16 else MixedPrecisionPolicy()
    for layer in _layers(model):
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    trainer.accelerator.prepare_model = lambda given, *_, **__: given


def _keeper(model: Any) -> Any:
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):
        """Keeps the whole weights of the epoch with the least loss, in process 0; `best` is {} in others."""

        def __init__(self) -> None:
            self.best: dict[str, Any] = {}
            self._least = math.inf

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **more: Any) -> None:
            loss = group().agree({"loss": float((metrics or {})["eval_loss"])})["loss"]
            if loss >= self._least:
                return
            self._least = loss
            for name, values in model.state_dict().items():
                whole = values.full_tensor()  # all processes take part
                if group().leads:
                    self.best[name] = whole.detach().cpu()

    return Keeper()


def _preference(pair: Pair) -> dict[str, str]:
    return {"prompt": pair.chosen.before, "chosen": pair.chosen.answer, "rejected": pair.rejected.answer}


def _last_whole(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end."""
    found = [each for each in folder.glob("checkpoint-*") if (each / _COMPLETE).exists()]
    return max(found, key=lambda each: int(each.name.rpartition("-")[2]), default=None)


def _teller(progress: Progress, epochs: int) -> Any:
    from transformers import TrainerCallback

    class Teller(TrainerCallback):
        """Passes on where the training is."""

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.is_world_process_zero:
                progress(round(float(state.epoch or 0), 3), epochs, steps=state.global_step)

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **more: Any) -> None:
            if state.is_world_process_zero and metrics:
                done = round(float(state.epoch or 0), 3)
                progress(done, epochs, valid_loss=metrics.get("eval_loss"))

    return Teller()


def _history(log: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    rows: dict[int, dict[str, float]] = {}
    names = {"loss": "train_loss", "eval_loss": "valid_loss", "eval_rewards/accuracies": "accuracy"}
    for entry in log:
        for name, ours in names.items():
            if name in entry:
                epoch = round(float(entry["epoch"]))
                rows.setdefault(epoch, {"epoch": float(epoch)})[ours] = float(entry[name])
    return [rows[epoch] for epoch in sorted(rows)]


def environment() -> None:
    """Keep libraries from looking for models, and from sending what they count."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
