"""Tensors as bytes, over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from contracts.errors import PlatformError
from services.errors import Problem
from services.oip import binary as oip_binary
from services.oip import oip_pb2 as pb
from services.oip.grpc_server import SERVICE, GrpcServer
from services.server.auth import make_key
from services.server.lifecycle import MODALITIES
from services.settings import ServiceSettings

PATH = "/v2/models/payments/infer"
AMOUNTS = struct.pack("<2d", 500, 100)
COUNTRIES = b"".join(struct.pack("<I", len(name)) + name for name in (b"AT", b"XX"))


def post(served: Any, document: Any, raw: bytes, length: str = "", **tensor: Any) -> Any:
    header = json.dumps(document).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": length or str(len(header)),
    }
    return served.client.post(PATH, content=header + raw, headers=headers)


def binary(name: str, datatype: str, size: Any, rows: int = 2) -> dict[str, Any]:
    return {"name": name, "shape": [rows], "datatype": datatype, "parameters": {"binary_data_size": size}}


INPUTS = [binary("amount", "FP64", len(AMOUNTS)), binary("country", "BYTES", len(COUNTRIES))]


def test_tensors_come_in_as_bytes_and_go_out_as_asked(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}]
    answer = post(served, {"inputs": INPUTS, "outputs": wanted}, AMOUNTS + COUNTRIES)
    assert answer.status_code == 200, answer.text
    end = int(answer.headers["inference-header-content-length"])
    document = json.loads(answer.content[:end])
    assert document["outputs"][1]["data"] == ["fraud", "genuine"]
    assert "data" not in document["outputs"][0]
    assert struct.unpack("<4d", answer.content[end:]) == pytest.approx([0.5, 0.5, 0.9, 0.1])


def test_all_outputs_can_be_asked_for_as_bytes(serve: Any, make_bundle: Any) -> None:
    document = {"inputs": INPUTS, "parameters": {"binary_data_output": True}}
    answer = post(serve(make_bundle()), document, AMOUNTS + COUNTRIES)
    end = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:end])["outputs"]
    sizes = [one["parameters"]["binary_data_size"] for one in outputs]
    assert sum(sizes) == len(answer.content) - end
    labels = answer.content[end + sizes[0] : end + sizes[0] + sizes[1]]
    assert oip_binary.decode("BYTES", labels, "label") == [b"fraud", b"genuine"]


def test_bytes_and_json_can_be_mixed(serve: Any, make_bundle: Any) -> None:
    country = {"name": "country", "shape": [2], "datatype": "BYTES", "data": ["AT", "DE"]}
    assert post(serve(make_bundle()), {"inputs": [INPUTS[0], country]}, AMOUNTS).status_code == 200


def test_a_request_without_a_content_type_is_json_for_this_protocol_only(serve: Any, make_bundle: Any) -> None:
    client = serve(make_bundle()).client
    tensors = [
        {"name": "amount", "shape": [1], "datatype": "FP64", "data": [1]},
        {"name": "country", "shape": [1], "datatype": "BYTES", "data": ["AT"]},
    ]
    body = json.dumps({"inputs": tensors}).encode()
    assert client.post(PATH, content=body).status_code == 200
    assert client.post(PATH, content=body, headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/predict", content=body).status_code == 415


@pytest.mark.parametrize(
    ("inputs", "raw", "length", "field"),
    [
        ([binary("amount", "FP64", 17), INPUTS[1]], AMOUNTS + COUNTRIES, "", "inputs[0]"),
        ([binary("amount", "FP64", 10**9), INPUTS[1]], AMOUNTS, "", "inputs[0].parameters.binary_data_size"),
        ([binary("amount", "FP64", "16"), INPUTS[1]], AMOUNTS, "", "inputs[0].parameters.binary_data_size"),
        ([binary("amount", "FP64", -1), INPUTS[1]], AMOUNTS, "", "inputs[0].parameters.binary_data_size"),
        ([binary("amount", "FP7", 16), INPUTS[1]], AMOUNTS + COUNTRIES, "", "inputs[0].datatype"),
        (INPUTS, AMOUNTS + COUNTRIES + b"x", "", "inputs"),
        (INPUTS, AMOUNTS + b"\xff" * len(COUNTRIES), "", "inputs[1]"),
        ([INPUTS[0] | {"data": [1, 2]}, INPUTS[1]], AMOUNTS + COUNTRIES, "", "inputs[0].data"),
        ([INPUTS[0] | {"shape": [3]}, INPUTS[1]], AMOUNTS + COUNTRIES, "", "inputs.amount.data"),
        (INPUTS, AMOUNTS + COUNTRIES, "99999", "inference-header-content-length"),
        (INPUTS, AMOUNTS + COUNTRIES, "-5", "inference-header-content-length"),
    ],
)
def test_sizes_that_do_not_add_up_are_refused(
    serve: Any, make_bundle: Any, inputs: Any, raw: bytes, length: str, field: str
) -> None:
    answer = post(serve(make_bundle()), {"inputs": inputs}, raw, length)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == field


def test_bytes_that_are_no_number_are_refused_as_in_json(serve: Any, make_bundle: Any) -> None:
    raw = struct.pack("<2d", float("nan"), float("inf"))
    answer = post(serve(make_bundle()), {"inputs": INPUTS}, raw + COUNTRIES)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["inputs.amount[0]", "inputs.amount[1]"]


@pytest.mark.parametrize(
    ("datatype", "values"),
    [("FP64", [1.5, -2.0]), ("INT64", [1, -(2**63)]), ("BOOL", [True, False]), ("BYTES", ["", "\u4e16", "a"])],
)
def test_decoding_inverts_encoding(datatype: str, values: list[Any]) -> None:
    expected = [one.encode() if isinstance(one, str) else one for one in values]
    assert oip_binary.decode(datatype, oip_binary.encode(datatype, values), "x") == expected


def test_what_is_no_text_is_refused_where_one_is_expected(serve: Any, make_bundle: Any) -> None:
    raw = b"\x02\x00\x00\x00AT\x01\x00\x00\x00\xff"
    inputs = [INPUTS[0], binary("country", "BYTES", len(raw))]
    answer = post(serve(make_bundle()), {"inputs": inputs}, AMOUNTS + raw)
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"field": "inputs.country", "message": "a string is not UTF-8"}]


@pytest.mark.parametrize("raw", [b"\x01", b"\x05\x00\x00\x00a"])
def test_broken_strings_are_refused(raw: bytes) -> None:
    with pytest.raises(Problem):
        oip_binary.decode("BYTES", raw, "x")


Ask = Callable[..., Awaitable[Any]]


def over_grpc(bundle: Any, story: Callable[[Ask, Any], Awaitable[Any]], **settings: Any) -> Any:
    """Run `story` with a function that calls a method, and the runtime."""

    async def main() -> Any:
        runtime = MODALITIES.get("tabular").make()
        await runtime.start(ServiceSettings(bundle=str(bundle.path), version="3", **settings))
        await runtime.loaded()
        server = GrpcServer(runtime)
        port = await server.start("127.0.0.1", 0)
        runtime.on_stop.append(server.stop)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

            async def ask(name: str, message: Any = None, **more: Any) -> Any:
                kind = getattr(pb, f"{name}Request")
                method = channel.unary_unary(
                    f"/{SERVICE}/{name}", kind.SerializeToString, getattr(pb, f"{name}Response").FromString
                )
                return await method(message or kind(), **more)

            answer = await story(ask, runtime)
        await runtime.stop()
        return answer

    return asyncio.run(asyncio.wait_for(main(), 20))


def infer_request(raw: bool = False, amount: float = 500.0, **fields: Any) -> Any:
    message = pb.ModelInferRequest(model_name="payments", **fields)
    one, two = (
        message.inputs.add(name=n, datatype=d, shape=[1]) for n, d in (("amount", "FP64"), ("country", "BYTES"))
    )
    if raw:
        message.raw_input_contents.extend([struct.pack("<d", amount), struct.pack("<I", 2) + b"AT"])
    else:
        one.contents.fp64_contents.append(amount)
        two.contents.bytes_contents.append(b"AT")
    return message


@pytest.mark.parametrize("raw", [False, True])
def test_grpc_gives_the_same_numbers(serve: Any, make_bundle: Any, raw: bool) -> None:
    async def story(ask: Ask, runtime: Any) -> Any:
        return await ask("ModelInfer", infer_request(raw, id="mine"))

    answer = over_grpc(make_bundle(), story)
    assert (answer.model_name, answer.model_version, answer.id) == ("payments", "3", "mine")
    assert answer.outputs[0].shape == [1, 2]
    if raw:
        assert struct.unpack("<2d", answer.raw_output_contents[0]) == (0.5, 0.5)
        assert oip_binary.decode("BYTES", answer.raw_output_contents[1], "label") == [b"fraud"]
    else:
        assert list(answer.outputs[0].contents.fp64_contents) == [0.5, 0.5]
        assert list(answer.outputs[1].contents.bytes_contents) == [b"fraud"]


def test_grpc_describes_server_and_model(serve: Any, make_bundle: Any) -> None:
    async def story(ask: Ask, runtime: Any) -> Any:
        assert (await ask("ServerLive")).live
        assert (await ask("ServerReady")).ready
        assert (await ask("ModelReady", pb.ModelReadyRequest(name="payments", version="3"))).ready
        assert (await ask("ServerMetadata")).name == "fairlead-tabular"
        runtime.state = "draining"
        assert not (await ask("ServerReady")).ready
        return await ask("ModelMetadata", pb.ModelMetadataRequest(name="payments"))

    metadata = over_grpc(make_bundle(), story)
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [
        ("amount", "FP64", [-1]),
        ("country", "BYTES", [-1]),
    ]


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (infer_request(amount=float("nan")), grpc.StatusCode.INVALID_ARGUMENT, "inputs.amount[0]"),
        (pb.ModelInferRequest(model_name="other"), grpc.StatusCode.NOT_FOUND, "has model payments"),
        (infer_request(model_version="9"), grpc.StatusCode.NOT_FOUND, "has version 3"),
        (pb.ModelInferRequest(model_name="payments"), grpc.StatusCode.INVALID_ARGUMENT, "missing tensor"),
        (infer_request(raw_input_contents=[b"x"]), grpc.StatusCode.INVALID_ARGUMENT, "1 raw contents for 2 tensors"),
    ],
)
def test_grpc_says_what_is_wrong(serve: Any, make_bundle: Any, message: Any, code: Any, text: str) -> None:
    async def story(ask: Ask, runtime: Any) -> Any:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask("ModelInfer", message)
        return caught.value

    error = over_grpc(make_bundle(), story)
    assert error.code() == code
    assert text in error.details()


def test_grpc_asks_for_keys_and_counts_its_requests(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    key, line = make_key("client")
    (tmp_path / "keys").write_text(line + "\n")

    async def story(ask: Ask, runtime: Any) -> Any:
        assert (await ask("ServerReady")).ready
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask("ModelInfer", infer_request())
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        await ask("ModelInfer", infer_request(), metadata=(("authorization", f"Bearer {key}"),))
        return runtime.metrics.render()[0].decode()

    text = over_grpc(make_bundle(), story, keys_file=str(tmp_path / "keys"))
    assert f'code="401",model="payments",route="/{SERVICE}/ModelInfer",version="3"}} 1.0' in text
    assert f'code="200",model="payments",route="/{SERVICE}/ModelInfer",version="3"}} 1.0' in text


def test_a_taken_port_is_named(serve: Any, make_bundle: Any) -> None:
    async def story(ask: Ask, runtime: Any) -> Any:
        first = GrpcServer(runtime)
        port = await first.start("127.0.0.1", 0)
        with pytest.raises(PlatformError, match=str(port)):
            await GrpcServer(runtime).start("127.0.0.1", port)
        await first.stop()

    over_grpc(make_bundle(), story)


def test_the_generated_messages_are_those_of_the_protocol_file(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    folder = root / "services" / "oip"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(folder), f"--python_out={tmp_path}"]
    subprocess.run([*command, str(folder / "oip.proto")], check=True)
    assert (tmp_path / "oip_pb2.py").read_text() == (folder / "oip_pb2.py").read_text(), "run: make protos"
