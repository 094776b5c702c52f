"""The contestants: the same ONNX model behind each framework, as its documentation shows; run by their own Python.

``python serving_peers.py NAME PORT``; the model's file is in ``BENCH_MODEL``. Frameworks come from ``build/peers``, see
``make bench-serving``; nothing here is imported by the platform.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FLOATS = ("a", "b", "c", "d")


class Model:
    """Rows of four numbers to probabilities."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options)

    def __call__(self, rows: list[list[float]]) -> list[float]:
        import numpy as np

        return self.session.run(["probabilities"], {"features": np.array(rows, np.float64)})[0][:, 1].tolist()


def answer(scores: list[float]) -> dict[str, Any]:
    return {"predictions": [{"label": "yes" if p >= 0.5 else "no", "probability": p} for p in scores]}


def starlette(port: int) -> None:
    import orjson
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    model = Model()

    async def predict(request: Request) -> Response:
        body = orjson.loads(await request.body())
        scores = model([[row[name] for name in FLOATS] for row in body["instances"]])
        return Response(orjson.dumps(answer(scores)), media_type="application/json")

    async def noop(request: Request) -> Response:
        return Response(b'{"live":true}', media_type="application/json")

    app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/noop", noop)])
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


def fastapi(port: int) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    globals()["BaseModel"] = BaseModel
    # Annotations are strings in this file, and FastAPI looks them up in the module.
    exec(
        "class Row(BaseModel):\n a: float\n b: float\n c: float\n d: float\n"
        "class Body(BaseModel):\n instances: list[Row]\n"
        "class Prediction(BaseModel):\n label: str\n probability: float\n"
        "class Predictions(BaseModel):\n predictions: list[Prediction]\n",
        globals(),
    )
    app, model = FastAPI(), Model()

    async def predict(body: Body) -> Predictions:  # type: ignore[name-defined]  # noqa: F821
        return globals()["Predictions"](**answer(model([[row.a, row.b, row.c, row.d] for row in body.instances])))

    async def noop() -> dict[str, bool]:
        return {"live": True}

    app.post("/predict")(predict)
    app.get("/noop")(noop)
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


def litserve(port: int) -> None:
    import litserve as ls

    class Api(ls.LitAPI):
        def setup(self, device: str) -> None:
            self.model = Model()

        def decode_request(self, request: dict[str, Any]) -> list[list[float]]:
            return [[row[name] for name in FLOATS] for row in request["instances"]]

        def predict(self, rows: list[list[float]]) -> list[float]:
            return self.model(rows)

        def encode_response(self, output: list[float]) -> dict[str, Any]:
            return answer(output)

    server = ls.LitServer(Api(api_path="/predict"), accelerator="cpu", workers_per_device=1)
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="warning", num_api_servers=1)


def litserve_batching(port: int) -> None:
    import litserve as ls

    class Api(ls.LitAPI):
        def setup(self, device: str) -> None: ...

        def decode_request(self, request: dict[str, Any]) -> float:
            return float(request["x"])

        def batch(self, inputs: list[float]) -> list[float]:
            return inputs

        def predict(self, batch: list[float]) -> list[float]:
            time.sleep(0.005 + 0.0005 * len(batch))
            return batch

        def unbatch(self, output: list[float]) -> list[float]:
            return output

        def encode_response(self, output: float) -> dict[str, float]:
            return {"y": output}

    api = Api(api_path="/predict", max_batch_size=32, batch_timeout=0.005)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="warning", num_api_servers=1)


def mlserver(port: int) -> None:
    folder = Path(os.environ["BENCH_FOLDER"]) / "mlserver"
    folder.mkdir(exist_ok=True)
    settings = f'{{"http_port": {port}, "grpc_port": {port + 1}, "metrics_port": {port + 2}, "host": "127.0.0.1"'
    (folder / "settings.json").write_text(settings + ', "parallel_workers": 0, "debug": false}')
    name = "serving_mlserver.Floats"
    (folder / "model-settings.json").write_text(f'{{"name": "floats", "implementation": "{name}"}}')
    (folder / "serving_mlserver.py").write_text(_MLSERVER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent)])}
    os.execve(str(Path(sys.executable).with_name("mlserver")), ["mlserver", "start", str(folder)], environment)


_MLSERVER = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
import numpy as np
from serving_peers import Model

class Floats(MLModel):
    async def load(self) -> bool:
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = np.stack([NumpyCodec.decode_input(one).ravel() for one in payload.inputs], axis=1)
        out = NumpyCodec.encode_output("probabilities", np.array(self.model(rows)))
        return InferenceResponse(model_name=self.name, outputs=[out])
"""


def ray(port: int) -> None:
    import ray as ray_core
    from ray import serve
    from starlette.requests import Request

    ray_core.init(num_cpus=2, include_dashboard=False, logging_level="error", configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})

    @serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.1})
    class Floats:
        def __init__(self) -> None:
            self.model = Model()

        async def __call__(self, request: Request) -> dict[str, Any]:
            body = await request.json()
            return answer(self.model([[row[name] for name in FLOATS] for row in body["instances"]]))

    serve.run(Floats.bind(), route_prefix="/predict")
    while True:
        time.sleep(60)


_BENTO = """
import time
import bentoml
from serving_peers import FLOATS, Model, answer

@bentoml.service
class Floats:
    def __init__(self) -> None:
        self.model = Model() if "{kind}" == "plain" else None

    @bentoml.api
    def predict(self, instances: list[dict[str, float]]) -> dict:
        return answer(self.model([[row[name] for name in FLOATS] for row in instances]))

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60000)
    def batched(self, x: list[float]) -> list[float]:
        time.sleep(0.005 + 0.0005 * len(x))
        return x
"""


def bentoml(port: int, kind: str = "plain") -> None:
    folder = Path(os.environ["BENCH_FOLDER"]) / f"bentoml-{kind}"
    folder.mkdir(exist_ok=True)
    (folder / "bench_service.py").write_text(_BENTO.format(kind=kind))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent)]),
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_HOME": str(folder / "home"),
    }
    program = str(Path(sys.executable).with_name("bentoml"))
    argv = ["bentoml", "serve", "bench_service:Floats", "--port", str(port), "--host", "127.0.0.1"]
    raise SystemExit(subprocess.call([program, *argv[1:]], env=environment, cwd=folder))


def bentoml_batching(port: int) -> None:
    bentoml(port, "batching")


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]))
