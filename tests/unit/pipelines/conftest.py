"""The toy task (tests/toy) and what its steps make of it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import pipelines.tasks
from contracts.endpoints import Endpoints
from pipelines.task import dump_config
from pipelines.tasks import load_config

_TOY = Path(__file__).parents[2] / "toy" / "toy_task.py"


def _load_toy() -> Any:
    spec = importlib.util.spec_from_file_location("pipelines.tasks.toy", _TOY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pipelines.tasks.toy"] = module  # dataclasses look their module up while it is executed
    spec.loader.exec_module(module)
    del sys.modules["pipelines.tasks.toy"]
    return module


toy_module = _load_toy()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The toy task, known by its name while a test runs."""
    known = pipelines.tasks.task_names()
    monkeypatch.setitem(sys.modules, "pipelines.tasks.toy", toy_module)
    monkeypatch.setattr(pipelines.tasks, "task_names", lambda: [*known, "toy"])
    return toy_module.TASK


@pytest.fixture
def toy_config(toy: Any) -> Callable[..., str]:
    """A function from sections to replace to the configuration's JSON."""

    def make(**sections: dict[str, Any]) -> str:
        document = json.loads(dump_config(toy.recipes["tree"]))
        for name, values in sections.items():
            document[name] |= values
        return dump_config(load_config(toy, json.dumps(document)))

    return make


@pytest.fixture
def endpoints(tmp_path: Path) -> str:
    """JSON of endpoints that are all below the test's folder."""
    return Endpoints(home=str(tmp_path / "home")).resolved().model_dump_json()


def write_csv(path: Path, frame: Any) -> Path:
    """A frame as a CSV file with ISO moments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.assign(sent=frame["sent"].dt.strftime("%Y-%m-%dT%H:%M:%S")).to_csv(path, index=False)
    return path


@contextmanager
def _knowing_toy() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pipelines.tasks.toy", toy_module)
        patch.setattr(pipelines.tasks, "task_names", lambda: ["toy"])
        yield dump_config(toy_module.TASK.recipes["tree"])


@pytest.fixture(scope="session")
def knowing_toy() -> Callable[[], AbstractContextManager[str]]:
    """A block in which the toy task is known, for fixtures that outlive a test; gives its configuration."""
    return _knowing_toy


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`candidate` for fixtures that outlive a test."""
    with _knowing_toy() as config:
        return make_candidate(tmp_path_factory.mktemp("toy"), config)


@pytest.fixture
def candidate(toy: Any, built: Path) -> Path:
    """A folder with dataset/, model/ and candidate/ of the toy task, made by the steps themselves; only to be read."""
    return built


def make_candidate(folder: Path, config: str) -> Path:
    """Ingest the built-in data, validate, build, train and evaluate below `folder`."""
    from pipelines.steps.build_dataset import build_dataset
    from pipelines.steps.evaluate import evaluate
    from pipelines.steps.ingest import ingest
    from pipelines.steps.train import train
    from pipelines.steps.validate import validate

    version = ingest("toy", config, "", str(folder / "data"), str(folder / "manifest.json"))
    validate("toy", config, str(folder / "manifest.json"), str(folder / "clean"))
    build_dataset("toy", config, str(folder / "clean"), "", str(folder / "dataset"))
    train("toy", config, str(folder / "dataset"), str(folder / "checkpoints" / "a"), str(folder / "model"))
    lineage = json.dumps({"code_version": "code", "data_version": version, "source": "built-in"})
    evaluate("toy", config, str(folder / "dataset"), str(folder / "model"), lineage, str(folder / "candidate"))
    return folder


@pytest.fixture
def toy_frame() -> Callable[..., Any]:
    """A function from a number of rows (and a seed) to raw rows of the toy task."""
    return toy_module.toy_frame


@pytest.fixture
def toy_csv() -> Callable[..., Path]:
    """A function that writes a frame of the toy task as CSV."""
    return write_csv
