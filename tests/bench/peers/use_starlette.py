"""Starlette with raw JSON: the least that an ASGI framework can do."""

import sys

import orjson
import uvicorn
from four_floats import Model, answer, rows_of
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

model = Model()


async def predict(request: Request) -> Response:
    scores = model(rows_of(orjson.loads(await request.body())))
    return Response(orjson.dumps(answer(scores)), media_type="application/json")


async def noop(request: Request) -> Response:
    return Response(b'{"live":true}', media_type="application/json")


if __name__ == "__main__":
    app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/noop", noop)])
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning")
