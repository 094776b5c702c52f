"""GGUF files of Llama models: read into the form that transformers trains, and written for llama.cpp.

The files keep what llama.cpp wants: queries and keys with the rows of a head in its own order of rotary positions.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.bundle import sha256_file
from contracts.errors import PlatformError
from contracts.llama_process import check_gguf
from contracts.lora import LAYERS, OUTER, rotated, tensor_name, turned_back
from pipelines.io.files import user_cache
from pipelines.training.weight_files import INDEX, ONE, WeightFiles, has_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARCHITECTURE = "llama"
FORMS = ("f16", "q8_0", "q5_1", "q4_1")  # from the largest to the smallest
_FILE_TYPES = {"f32": 0, "f16": 1, "q4_1": 3, "q8_0": 7, "q5_1": 9}  # as GGUF counts them


@dataclass(frozen=True, kw_only=True)
class Base:
    """Weights that are trained from.

    Attributes:
        folder: as transformers saves them, with the tokenizer.
        file: the GGUF that they come from; None where they come from a folder.
        digest: of that file, or of the folder's weights, see `WeightFiles.digest`.
    """

    folder: Path
    file: Path | None
    digest: str


def import_gguf() -> Any:
    """The package, or how to get it."""
    try:
        import gguf
    except ImportError as err:
        raise PlatformError(
            "gguf is not installed",
            detail="it reads and writes weights for llama.cpp",
            fix="pip install 'fairlead[finetune]'",
            code="missing_package",
        ) from err
    return gguf


def base_of(weights: Path) -> Base:
    """Weights to train: a GGUF file, which is converted once and kept by its content, or a folder of transformers.

    Raises:
        PlatformError: ``code="bad_weights"``: cut, of another architecture, or not complete.
    """
    if weights.is_dir():
        for name in ("config.json", "tokenizer.json"):
            if not (weights / name).exists():
                raise refused(weights, f"{name} is missing")
        if not has_weights(weights):
            raise refused(weights, f"{ONE} is missing, and {INDEX} of several files")
        kind = json.loads((weights / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind != ARCHITECTURE:
            raise refused(weights, f"its architecture is {kind!r}; {ARCHITECTURE!r} is trained")
        try:
            return Base(folder=weights, file=None, digest=WeightFiles(weights).digest)
        except ValueError as err:
            raise refused(weights, str(err)) from err
    digest = sha256_file(weights)
    target = user_cache("weights") / digest
    if not (target / "model.safetensors").exists():
        _convert(weights, target)
    return Base(folder=target, file=weights, digest=digest)


def open_gguf(file: Path) -> Any:
    """A reader of a whole file of the architecture that is trained.

    Raises:
        PlatformError: ``code="bad_weights"``.
    """
    check_gguf(file)
    gguf = import_gguf()
    try:
        reader = gguf.GGUFReader(file)
        kind = reader.fields["general.architecture"].contents()
    except (ValueError, KeyError, IndexError, UnicodeDecodeError, OverflowError) as err:
        raise refused(file, f"it is cut short or broken: {err}") from err
    if kind != ARCHITECTURE:
        raise refused(file, f"its architecture is {kind!r}; {ARCHITECTURE!r} is trained")
    names = {tensor.name for tensor in reader.tensors}
    if "rope_freqs.weight" in names or f"{ARCHITECTURE}.rope.scaling.type" in reader.fields:
        raise refused(file, "its rotary positions are scaled, which is read from a folder of transformers only")
    return reader


def _convert(file: Path, target: Path) -> None:
    """Write what transformers trains to `target`, whole or not at all."""
    from safetensors.numpy import save_file

    reader = open_gguf(file)
    config = _config(reader, file)
    weights = dict(_weights(reader, config))
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=target.parent))
    try:
        save_file(weights, staging / "model.safetensors", {"format": "pt"})
        (staging / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        _tokenizer(file).save_pretrained(staging)
        os.replace(staging, target)
    except OSError:
        if not (target / "model.safetensors").exists():  # else: another run was first
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _tokenizer(file: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    except (KeyError, ValueError, TypeError, IndexError) as err:
        raise refused(file, f"its tokenizer cannot be read: {err}") from err


def _config(reader: Any, file: Path) -> dict[str, Any]:
    """``config.json`` of transformers."""

    def told(name: str, default: Any = None) -> Any:
        found = reader.fields.get(f"{ARCHITECTURE}.{name}")
        if found is None and default is None:
            raise refused(file, f"it does not tell {ARCHITECTURE}.{name}")
        return default if found is None else found.contents()

    def token(name: str) -> Any:
        found = reader.fields.get(f"tokenizer.ggml.{name}_token_id")
        return None if found is None else int(found.contents())

    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    heads, width = int(told("attention.head_count")), int(told("embedding_length"))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": ARCHITECTURE,
        "hidden_size": width,
        "intermediate_size": int(told("feed_forward_length")),
        "num_hidden_layers": int(told("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(told("attention.head_count_kv", heads)),
        "head_dim": int(told("attention.key_length", width // heads)),
        "max_position_embeddings": int(told("context_length")),
        "rms_norm_eps": float(told("attention.layer_norm_rms_epsilon")),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(told("rope.freq_base", 10_000.0))},
        "vocab_size": int(shapes["token_embd.weight"][1]),
        "tie_word_embeddings": "output.weight" not in shapes,
        "bos_token_id": token("bos"),
        "eos_token_id": token("eos"),
        "pad_token_id": token("padding"),
        "dtype": "float32",
    }


def _weights(reader: Any, config: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    import numpy as np

    gguf = import_gguf()
    outer = {ours: theirs for theirs, ours in OUTER.items()}
    layer = {ours: theirs for theirs, ours in LAYERS.items()}
    for tensor in reader.tensors:
        stem = tensor.name.removesuffix(".weight")
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = np.ascontiguousarray(turned_back(stem, values, config))
        if stem in outer:
            yield f"{outer[stem]}.weight", values
            continue
        _, number, kind = stem.split(".", 2)
        if kind not in layer:
            raise refused(Path(tensor.name), "no tensor of a Llama")
        yield f"model.layers.{number}.{layer[kind]}.weight", values


def write_gguf(
    file: Path, weights: Mapping[str, NDArray[Any]], config: Mapping[str, Any], form: str, like: Any
) -> None:
    """Write a Llama, tensor by tensor.

    Args:
        weights: of transformers, by name, float32; a `WeightFiles` is read once, and never held as a whole.
        config: of transformers, with the numbers of heads.
        form: one of `FORMS`, or f32. Tables of tokens have 8 bits at least, vectors 32.
        like: a reader whose every other field is taken over, or a mapping of fields, see `fields_of`.
    """
    gguf = import_gguf()
    writer = gguf.GGUFWriter(file, ARCHITECTURE)
    add_fields(writer, like)
    writer.add_file_type(_FILE_TYPES[form])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    shapes = weights.shapes if isinstance(weights, WeightFiles) else {at: one.shape for at, one in weights.items()}
    for name in weights:
        stem = tensor_name(name)
        _announce(writer, f"{stem}.weight", shapes[name], _kind(stem, shapes[name], form))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name in weights:
        stem = tensor_name(name)
        writer.write_tensor_data(quantised(stem, rotated(stem, weights[name], config), form)[0])
    writer.close()


def _announce(writer: Any, name: str, shape: Sequence[int], kind: Any) -> None:
    """Say what a tensor will be; its bytes follow."""
    import numpy as np

    gguf = import_gguf()
    plain = {gguf.GGMLQuantizationType.F32: np.float32, gguf.GGMLQuantizationType.F16: np.float16}
    dtype = np.dtype(plain.get(kind, np.uint8))
    size = shape if kind in plain else gguf.quant_shape_to_byte_shape(shape, kind)
    writer.add_tensor_info(name, size, dtype, math.prod(size) * dtype.itemsize, raw_dtype=kind)


def _kind(stem: str, shape: Sequence[int], form: str) -> Any:
    """What GGUF calls the kind of a tensor of this shape in a form."""
    types = import_gguf().GGMLQuantizationType
    if len(shape) == 1 or form == "f32":
        return types.F32
    wanted = "q8_0" if form.startswith(("q4", "q5")) and stem in ("token_embd", "output") else form
    return types.F16 if wanted == "f16" or shape[-1] % 32 else getattr(types, wanted.upper())


def quantised(stem: str, values: NDArray[Any], form: str) -> tuple[NDArray[Any], Any]:
    """The bytes of a tensor in a form, and what GGUF calls their kind."""
    import numpy as np

    gguf = import_gguf()
    types, kind = gguf.GGMLQuantizationType, _kind(stem, values.shape, form)
    if kind in (types.F32, types.F16):
        return values.astype(np.float32 if kind == types.F32 else np.float16), kind
    return gguf.quants.quantize(np.ascontiguousarray(values, dtype=np.float32), kind), kind


def rounded(name: str, values: NDArray[Any], form: str) -> NDArray[Any]:
    """What a weight of transformers is after it was written in `form`; rows are quantised each for itself."""
    raw, kind = quantised(tensor_name(name), values, form)
    found: NDArray[Any] = import_gguf().quants.dequantize(raw, kind).reshape(values.shape)
    return found


def write_adapter(file: Path, folder: Path, config: Mapping[str, Any], base: str) -> None:
    """Write matrices of low rank, as peft saved them into `folder`, for llama.cpp.

    base: digest of the weights that they belong to.

    Raises:
        PlatformError: ``code="bad_adapter"``: it changes something that llama.cpp does not take from adapters.
    """
    import numpy as np
    from safetensors.numpy import load_file

    gguf = import_gguf()
    told = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(file, ARCHITECTURE)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(told["lora_alpha"]))
    writer.add_string("fairlead.base", base)
    for name, values in sorted(load_file(folder / "adapter_model.safetensors").items()):
        stem, _, side = name.removeprefix("base_model.model.").partition(".lora_")
        try:
            ours = tensor_name(stem)
        except KeyError:
            raise PlatformError(
                f"the adapter cannot be served: it changes {name}",
                detail=f"llama.cpp takes matrices of: {', '.join(sorted(LAYERS))}",
                fix="train with the usual model.targets",
                code="bad_adapter",
            ) from None
        letter = side[0].lower()
        turned = rotated(ours, values, config) if letter == "b" else values
        writer.add_tensor(f"{ours}.weight.lora_{letter}", np.ascontiguousarray(turned, dtype=np.float32))
    _write(writer)


def add_fields(writer: Any, like: Any) -> None:
    """Give a file the fields of another one, or those of a mapping, but for its form."""
    gguf = import_gguf()
    left = {"general.architecture", "general.file_type", "general.quantization_version"}
    if isinstance(like, Mapping):
        for name, (value, kind, inner) in like.items():
            writer.add_key_value(name, value, kind, inner)
        return
    for name, found in like.fields.items():
        if name in left or name.startswith("GGUF."):
            continue
        kind = found.types[0]
        inner = found.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, found.contents(), kind, inner)


def _write(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def refused(weights: Path, detail: str) -> PlatformError:
    """The error for weights that cannot be trained."""
    return PlatformError(
        f"weights cannot be trained: {weights}",
        detail=detail,
        fix="give a whole GGUF of a Llama, or a folder of one with config.json, model.safetensors (or several files "
        "with their index) and tokenizer.json: --set model.weights=FILE",
        code="bad_weights",
    )
