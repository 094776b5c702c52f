"""The bundle: one model as an immutable folder, described by ``bundle.json`` and verified by sha256.

bundle.json      this document            model/           LightGBM text, ONNX, or safetensors; never pickle
golden.jsonl     inputs, expected outputs  features.json    how to read its features online (only with features)
baseline.json    what normal looks like    evaluation.json, plots/*.png, card.html, data.html
reasons.json     what people are told: {"favourable": class, "texts": {input: {"en", "zh"}}, "changes": {input: way}}
seen.bin         hashes of the rows that the model has learned from (8 bytes each, at most 8 MiB)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, WithJsonSchema, model_validator

from contracts.document import Document
from contracts.errors import PlatformError
from contracts.loop_policy import LoopPolicy
from contracts.problems import OURS, get_problem, read_output
from contracts.problems.base import Output, Problem
from contracts.problems.classification import Decision
from contracts.rollout_policy import RolloutPolicy

SCHEMA_VERSION = 2  # 1 had classes in the place of an output, and is read for ever
DOCUMENT = "bundle.json"
REASON_TEXTS = "reasons.json"
AnyOutput = Annotated[
    SerializeAsAny[Output],
    BeforeValidator(read_output),
    WithJsonSchema({"type": "object", "required": ["problem"], "properties": {"problem": {"type": "string"}}}),
]


class Input(Document):
    """One input column of the model, in the model's order."""

    name: str
    dtype: Literal["float64", "int64", "bool", "string", "bytes"]  # bytes: a file, in JSON as base64
    source: Literal["request", "online", "on_demand"] = "request"
    default: float | int | str | None = Field(None, description="served when a value is missing; null means NaN")
    optional: bool = Field(False, description="a request may leave it out, which is the default without a flag")
    categories: list[str] | None = Field(None, description="accepted values of a string input; others are flagged")
    minimum: float | None = None
    maximum: float | None = None
    description: str = ""


class Signature(Document):
    """What a request carries and what comes back, rows in request order."""

    inputs: list[Input]
    output: AnyOutput = Field(description="what is said about each row, told apart by its problem")
    entities: list[str] = Field([], description="entity keys of a request that asks for online features")
    request: list[Input] = Field([], description="request fields that on-demand features are made of")
    timestamp: str | None = Field(None, description="request field with the moment of the event, ISO 8601")

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, value: Any) -> Any:
        if isinstance(value, dict) and "classes" in value and "output" not in value:
            rest = {key: given for key, given in value.items() if key != "classes"}
            return {**rest, "output": {"problem": "classification", "classes": value["classes"]}}
        return value

    @property
    def problem(self) -> Problem[Any]:
        """The kind of output."""
        return get_problem(self.output.problem)


class Check(Document):
    """One threshold of the gate and what was measured."""

    metric: str
    rule: str
    value: float | None
    limit: float
    passed: bool
    against: str = "fixed"
    difference: float | None = Field(default=None, description="candidate minus champion; only of a comparison with it")
    interval: tuple[float, float] | None = Field(default=None, description="of the difference, 95 %")
    rows_compared: int | None = Field(default=None, description="null when the champion's recorded value was compared")
    rows_left_out: int | None = Field(default=None, description="test rows that one of the two has learned from")


class GateDecision(Document):
    """The gate's verdict with its reasons; it travels with the model."""

    passed: bool
    checks: list[Check]
    champion: str | None = Field(None, description="name:version of the model compared with")
    reasons: list[str] = Field([])


class Lineage(Document):
    """Where a bundle comes from: the same lineage gives the same model."""

    code_version: str
    data_version: str
    source: str
    seed: int
    run: str = ""
    created: str = Field(description="UTC, ISO 8601")


class BundleDocument(Document):
    """The content of ``bundle.json``."""

    schema_version: Literal[1, 2] = 2
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")
    task: str
    recipe: str
    modality: str = Field(description="which service serves it: a folder of services/")
    engine: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$", description="what executes it, see contracts/engines")
    signature: Signature
    decision: Decision | None = None
    feature_service: str | None = None
    parameters: dict[str, Any] = Field({})
    metrics: dict[str, float] = Field({})
    slices: dict[str, dict[str, float]] = Field({})
    layout: dict[str, Any] = Field({}, description="how the training data were read; what is scored is read alike")
    rollout: RolloutPolicy = Field(RolloutPolicy(), description="how traffic moves to this version")
    loop: LoopPolicy = Field(LoopPolicy(), description="what starts the next run of its task")
    gate: GateDecision
    lineage: Lineage
    files: dict[str, str] = Field(description="sha256 of every other file, by path")


class Golden(Document):
    """One replayed example: the service must answer what is `expected`, as far as `tolerance` goes.

    What `expected` is and what `tolerance` means belongs to the problem, see `Problem.expected`.
    """

    inputs: dict[str, float | int | str | bool | None]
    expected: Any
    tolerance: float = 1e-4

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, value: Any) -> Any:
        if isinstance(value, dict) and "probabilities" in value and "expected" not in value:
            rest = {key: given for key, given in value.items() if key != "probabilities"}
            return {**rest, "expected": value["probabilities"]}
        return value


class Bundle:
    """A verified bundle on disk.

    Attributes:
        path: its folder.  document: its ``bundle.json``.  digest: sha256 of ``bundle.json``, which names every byte.
    """

    def __init__(self, path: Path, document: BundleDocument, digest: str) -> None:
        self.path, self.document, self.digest = path, document, digest

    @property
    def model_path(self) -> Path:
        return self.path / "model"

    def golden(self) -> Iterator[Golden]:
        """The golden examples, in file order."""
        with (self.path / "golden.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                yield Golden.model_validate_json(line)

    def read_json(self, name: str) -> Any:
        """A JSON document of the bundle, or None when the bundle has none by that name."""
        file = self.path / name
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def sha256_file(path: Path) -> str:
    """sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _files(folder: Path) -> dict[str, str]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).as_posix() != DOCUMENT)
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in paths}


def write_bundle(source: Path, root: Path, fields: dict[str, Any]) -> Bundle:
    """Publish folder `source` as an immutable bundle ``root/<name>/<digest[:16]>``.

    `fields` is a BundleDocument without `files`. The folder appears whole or not at all; writing the same content
    again returns the bundle that is there.
    """
    document = BundleDocument.model_validate({**fields, "files": _files(source)})
    text = document.model_dump_json(indent=1) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    target = root / document.name / digest[:16]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=target.parent))
        try:
            shutil.copytree(source, staging, dirs_exist_ok=True)
            (staging / DOCUMENT).write_text(text, encoding="utf-8")
            staging.chmod(0o755)
            os.replace(staging, target)
        except OSError as err:
            shutil.rmtree(staging, ignore_errors=True)
            if not target.exists():  # else: another run published the same content first
                raise PlatformError(
                    f"could not write bundle {document.name}", detail=str(err), fix=f"check space and rights of {root}"
                ) from err
    return read_bundle(target)


def is_bundle(ref: str) -> bool:
    """Whether a model is named by the folder of its bundle."""
    return (Path(ref).expanduser() / DOCUMENT).exists()


def parse_document(text: bytes, place: str | Path) -> BundleDocument:
    """What a ``bundle.json`` says; `place` is the bundle's, for the error.

    Raises:
        PlatformError: ``code="bad_bundle"``: it is none, or of another version of the platform.
    """
    try:
        return BundleDocument.model_validate_json(text)
    except ValidationError as err:
        raise _bad(place, f"{DOCUMENT} does not fit schema version {SCHEMA_VERSION}: {err}") from err


def read_bundle(path: str | Path) -> Bundle:
    """Read and verify a bundle: every listed file with its hash, and no other file.

    Raises:
        PlatformError: ``code="bad_bundle"``, naming the first file that is wrong.
    """
    folder = Path(path)
    try:
        text = (folder / DOCUMENT).read_bytes()
    except FileNotFoundError:
        raise _bad(folder, f"{DOCUMENT} is missing") from None
    document = parse_document(text, folder)
    found = _files(folder)
    for name, expected in document.files.items():
        if name not in found:
            raise _bad(folder, f"{name} is missing")
        if found[name] != expected:
            raise _bad(folder, f"{name} has sha256 {found[name][:16]}..., bundle.json says {expected[:16]}...")
    if extra := sorted(set(found) - set(document.files)):
        raise _bad(folder, f"{extra[0]} is not listed in {DOCUMENT}")
    return Bundle(folder, document, hashlib.sha256(text).hexdigest())


def _bad(folder: str | Path, detail: str) -> PlatformError:
    return PlatformError(
        f"bundle refused: {folder}",
        detail=detail,
        fix="publish the model again; never edit a bundle",
        code="bad_bundle",
    )


def schema() -> dict[str, Any]:
    """The JSON Schema of ``bundle.json``; committed as contracts/bundle.schema.json, a test checks for drift."""
    document = BundleDocument.model_json_schema()
    ours = [get_problem(name).output.model_json_schema() for name in OURS]
    other = {"type": "object", "required": ["problem"], "properties": {"problem": {"not": {"enum": list(OURS)}}}}
    text = document["$defs"]["Signature"]["properties"]["output"]["description"]
    document["$defs"]["Signature"]["properties"]["output"] = {"description": text, "anyOf": [*ours, other]}
    return document
