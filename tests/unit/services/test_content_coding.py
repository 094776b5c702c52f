"""Packed request bodies: what is unpacked, and what is refused before it costs memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from services.errors import Problem
from services.server.content_coding import TooLargeError, codings_of, packed_limit, unpack

BODY = json.dumps({"instances": [{"amount": 500, "country": "AT"}]}).encode()
JSON = {"content-type": "application/json"}
LIMIT = 1 << 20


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


PACKERS: dict[str, list[Callable[[bytes], bytes]]] = {
    "gzip": [gzip.compress],
    "deflate": [zlib.compress, raw_deflate],
    "zstd": [zstd.compress],
}
EVERY = [(coding, pack) for coding, packers in PACKERS.items() for pack in packers]


def unpacked(body: bytes, *codings: str, limit: int = LIMIT) -> bytes:
    return asyncio.run(unpack(body, list(codings), limit))


@given(st.binary(max_size=200_000), st.lists(st.sampled_from(EVERY), min_size=1, max_size=3))
def test_what_was_packed_comes_out_again(content: bytes, layers: list[tuple[str, Callable[[bytes], bytes]]]) -> None:
    body = content
    for _, pack in layers:
        body = pack(body)
    assert unpacked(body, *(coding for coding, _ in layers)) == content


@pytest.mark.parametrize(("coding", "pack"), EVERY)
def test_the_limit_holds_for_the_content_to_the_byte(coding: str, pack: Callable[[bytes], bytes]) -> None:
    content = np.random.default_rng(1).bytes(300_000)  # cannot be packed: what arrives is larger than the content
    assert len(content) < len(pack(content)) <= packed_limit(len(content))
    assert unpacked(pack(content), coding, limit=300_000) == content
    with pytest.raises(TooLargeError):
        unpacked(pack(content), coding, limit=299_999)


@pytest.mark.parametrize(("coding", "pack"), EVERY)
@pytest.mark.parametrize("size", [1_000_001, 100_000_000])
def test_a_bomb_is_stopped_with_bounded_memory(coding: str, pack: Callable[[bytes], bytes], size: int) -> None:
    bomb = pack(bytes(size))
    tracemalloc.start()
    with pytest.raises(TooLargeError):
        unpacked(bomb, coding, limit=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000  # what zstd keeps as its window counts


def test_a_bomb_in_a_bomb_is_stopped_in_the_first_layer() -> None:
    bomb = gzip.compress(zstd.compress(np.random.default_rng(1).bytes(3_000_000)))
    with pytest.raises(TooLargeError):
        unpacked(bomb, "zstd", "gzip", limit=1_000_000)


def test_several_members_are_one_content() -> None:
    assert unpacked(gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(b"b") + bytes(200_000), "gzip") == b"ab"
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    assert unpacked(skippable + zstd.compress(b"a") + zstd.compress(b"b"), "zstd") == b"ab"
    with pytest.raises(Problem) as caught:
        unpacked(gzip.compress(b"") * 2000, "gzip")
    assert "more than 1024 parts" in caught.value.detail


@pytest.mark.parametrize(("coding", "pack"), EVERY)
def test_a_damaged_body_is_named(coding: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(BODY * 50)
    for broken in (b"", packed[:-1], packed[:5], packed[: len(packed) // 2], packed + b"more", b"\xff" * 40):
        with pytest.raises(Problem) as caught:
            unpacked(broken, coding)
        assert (caught.value.status, caught.value.code) == (400, "damaged-content")
        assert f"is not {coding}" in caught.value.title


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_changed_bit_is_found_by_the_checksum(coding: str) -> None:
    checked = {int(zstd.CompressionParameter.checksum_flag): 1}
    packed = bytearray(gzip.compress(BODY) if coding == "gzip" else zstd.compress(BODY, options=checked))
    packed[-3] ^= 1
    with pytest.raises(Problem):
        unpacked(bytes(packed), coding)


def test_a_window_beyond_what_http_allows_is_refused() -> None:
    content = np.random.default_rng(1).bytes(20_000_000)
    options = {int(zstd.CompressionParameter.window_log): 25, int(zstd.CompressionParameter.compression_level): 1}
    packed = zstd.compress(content, options=options)
    with pytest.raises(Problem):
        unpacked(packed, "zstd", limit=30_000_000)


def test_codings_are_read_from_all_headers_in_their_order() -> None:
    assert codings_of([b"GZip, identity", b" zstd,", b"x-gzip"]) == ["gzip", "zstd", "gzip"]
    for values in ([b"br"], [b"gzip, compress"], [b"gzip," * 5], [b"gzip;q=1"]):
        with pytest.raises(Problem) as caught:
            codings_of(values)
        assert (caught.value.status, caught.value.headers) == (415, {"accept-encoding": "gzip, deflate, zstd"})
        assert "gzip, deflate, zstd" in caught.value.detail


@pytest.mark.parametrize(("coding", "pack"), EVERY)
def test_predictions_are_the_same_packed_or_not(
    serve: Any, make_bundle: Any, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    served = serve(make_bundle(), max_body_bytes=2048)
    plain = served.client.post("/predict", content=BODY, headers=JSON).json()["predictions"][0]
    headers = {**JSON, "content-encoding": coding}
    for content in (pack(BODY), pack(b"\xef\xbb\xbf" + BODY)):
        answer = served.client.post("/predict", content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        assert {**answer.json()["predictions"][0], "id": ""} == {**plain, "id": ""}
    for content, status in ((pack(b" " * 2049), 413), (BODY, 400), (pack(BODY)[:-4], 400)):
        assert served.client.post("/predict", content=content, headers=headers).status_code == status


def test_both_layers_of_one_body_are_unpacked_and_unknown_ones_named(serve: Any, make_bundle: Any) -> None:
    client = serve(make_bundle()).client
    content = zstd.compress(gzip.compress(BODY))
    several: Any = [("content-type", "application/json"), ("content-encoding", "gzip"), ("content-encoding", "zstd")]
    for headers in (several, {**JSON, "content-encoding": "gzip, zstd"}):
        assert client.post("/predict", content=content, headers=headers).status_code == 200
    answer = client.post("/predict", content=BODY, headers={**JSON, "content-encoding": "br"})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate, zstd")
    assert "gzip, deflate, zstd" in answer.json()["detail"]
    assert client.post("/predict", content=BODY, headers={**JSON, "content-encoding": "identity"}).status_code == 200
