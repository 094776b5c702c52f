"""A model that does not fit is refused with what it needs and what would fit, and one that just fits is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from contracts.gguf import Head, read_head
from contracts.model_memory import FRONT, cache_bytes, check_gpu, check_room, needed, parameters
from contracts.quantities import parse
from tests.tiny_llama import HEAD, VOCABULARY, WIDTH, write_tiny_llama

GIB = 1 << 30


def large(**more: Any) -> Head:
    """Of the shape of an 8 B Llama in 8 bits."""
    fields: Mapping[str, Any] = {
        "block_count": 32, "embedding_length": 4096, "feed_forward_length": 14336, "attention.head_count": 32,
        "attention.head_count_kv": 8, **more,
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {f"blk.{layer}.all": (218_112_000,) for layer in range(32)} | {
        "token_embd.weight": (128_256, 4096)
    }
    size = 8 * GIB
    named = {f"llama.{key}": value for key, value in fields.items()}
    return Head(fields={"general.architecture": "llama", **named}, shapes=shapes, size=size)


def test_the_head_of_a_file_is_read_and_one_that_is_cut_is_refused(tmp_path: Path) -> None:
    file = write_tiny_llama(tmp_path / "m.gguf")
    head = read_head(file)
    assert head.size == file.stat().st_size
    assert (head.of_model("block_count"), head.of_model("attention.key_length")) == (1, HEAD)
    assert head.shapes["token_embd.weight"] == (len(VOCABULARY), WIDTH)
    assert cache_bytes(head, 100) == 100 * 2 * 2 * HEAD
    whole = file.read_bytes()
    for wrong in (b"", b"GGUF", whole[:100], b"zip!" + whole[4:], whole[:8] + b"\xff" * 16 + whole[24:]):
        (tmp_path / "cut.gguf").write_bytes(wrong)
        with pytest.raises(PlatformError, match=r"weights refused: .*cut\.gguf"):
            read_head(tmp_path / "cut.gguf")


def test_the_cache_is_of_layers_heads_window_and_slots() -> None:
    head = large()
    assert cache_bytes(head, 8192) == GIB  # as is known of this shape: 128 KiB a token
    assert needed(head, window=8192, slots=4).cache == 4 * GIB
    assert needed(head, window=8192, slots=4, caches=3).cache == 12 * GIB
    assert needed(head, window=8192, slots=4).beside > FRONT
    assert cache_bytes(large(**{"attention.head_count_kv": (8,) * 16 + (0,) * 16}), 8192) == GIB // 2
    assert cache_bytes(large(**{"attention.key_length": 64, "attention.value_length": 64}), 8192) == GIB // 2


def test_a_model_without_attention_has_no_cache() -> None:
    head = Head(fields={"general.architecture": "mamba", "mamba.block_count": 4}, shapes={"a": (2, 2)}, size=GIB)
    assert cache_bytes(head, 8192) == 0
    check_room("m", head, 2 * GIB, window=8192, slots=4)


def test_both_sides_of_the_border() -> None:
    head = large()
    total = needed(head, window=8192, slots=4).total
    check_room("m", head, total, window=8192, slots=4)
    with pytest.raises(PlatformError) as caught:
        check_room("m", head, total - 1, window=8192, slots=4, where="its pod", key="resources.limits.memory")
    assert caught.value.code == "too_large"
    assert "conversations 4Gi (8192 tokens x 4 slots)" in caught.value.detail
    for way in ("resources.limits.memory", "set slots to 3", "set window to 7936", "at most 9 bits (these have 9.2)"):
        assert way in caught.value.fix
    memory = int(parse(caught.value.fix.split(" to ")[1].split(",")[0]))
    check_room("m", head, memory, window=8192, slots=4)  # each way that is told is one
    check_room("m", head, total - 1, window=8192, slots=3)
    check_room("m", head, total - 1, window=7936, slots=4)
    with pytest.raises(PlatformError):
        check_room("m", head, total - 1, window=7936 + 256, slots=4)


def test_where_nothing_smaller_fits_memory_is_asked_for() -> None:
    with pytest.raises(PlatformError) as caught:
        check_room("m", large(), GIB // 2, window=8192, slots=4)
    assert re.fullmatch(
        r"give \d+Mi of memory, or take a smaller model; where the estimate is wrong, .*", caught.value.fix
    )


def test_gpus_have_to_hold_the_weights_and_one_conversation() -> None:
    head = large()
    assert 7.4e9 < parameters(head) < 7.6e9
    check_gpu("m", head, 24 * GIB, window=8192, gpus=1, share=0.9)
    with pytest.raises(PlatformError, match="too large for 1 GPUs of 16Gi") as caught:
        check_gpu("m", head, 16 * GIB, window=8192, gpus=1, share=0.9)
    assert "engine.tensorParallel to 2" in caught.value.fix
    check_gpu("m", head, 16 * GIB, window=8192, gpus=2, share=0.9)
    with pytest.raises(PlatformError, match="too large") as caught:
        check_gpu("m", head, 24 * GIB, window=131_072, gpus=1, share=0.9)
    found = re.search(r"config\.window to (\d+)", caught.value.fix)
    assert found is not None
    check_gpu("m", head, 24 * GIB, window=int(found[1]), gpus=1, share=0.9)
    with pytest.raises(PlatformError):
        check_gpu("m", head, 24 * GIB, window=int(found[1]) + 512, gpus=1, share=0.9)
