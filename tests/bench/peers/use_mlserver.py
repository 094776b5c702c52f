"""MLServer with a runtime of its own, over the Open Inference Protocol."""

import json
import os
import sys
from pathlib import Path

import numpy as np
from four_floats import Model
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Floats(MLModel):
    async def load(self) -> bool:
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = np.stack([NumpyCodec.decode_input(one).ravel() for one in payload.inputs], axis=1)
        scores = np.array(self.model(rows.tolist()))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", scores)])


if __name__ == "__main__":
    folder, port = Path(os.environ["BENCH_FOLDER"]) / "mlserver", int(sys.argv[1])
    folder.mkdir(exist_ok=True)
    ports = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    settings = {**ports, "host": "127.0.0.1", "parallel_workers": 0, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text('{"name": "floats", "implementation": "use_mlserver.Floats"}')
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    os.execve(str(Path(sys.executable).with_name("mlserver")), ["mlserver", "start", str(folder)], environment)
