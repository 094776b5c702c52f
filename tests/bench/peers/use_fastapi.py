"""FastAPI with async handlers and pydantic models."""

import sys

import uvicorn
from fastapi import FastAPI
from four_floats import Model, answer
from pydantic import BaseModel

app, model = FastAPI(), Model()


class Row(BaseModel):
    a: float
    b: float
    c: float
    d: float


class Body(BaseModel):
    instances: list[Row]


class Prediction(BaseModel):
    label: str
    probability: float


class Predictions(BaseModel):
    predictions: list[Prediction]


@app.post("/predict")
async def predict(body: Body) -> Predictions:
    return Predictions(**answer(model([[row.a, row.b, row.c, row.d] for row in body.instances])))


@app.get("/noop")
async def noop() -> dict[str, bool]:
    return {"live": True}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning")
