"""What a task is: the one protocol that steps know, and the configuration every recipe starts from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from contracts.bundle import Input
from contracts.errors import PlatformError
from contracts.loop_policy import LoopPolicy
from contracts.rollout_policy import RolloutPolicy
from pipelines.gate_limits import ExplanationLimits, RedactionLimits
from pipelines.search_space import SearchConfig
from pipelines.settings import apply
from pipelines.tuning_limits import TuningLimits

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

STRICT = ConfigDict(extra="forbid")
Progress = Callable[..., None]  # progress(done, total, **metrics); prints one JSON line


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Column:
    """One column of the raw data and what makes a value of it valid."""

    name: str
    dtype: Literal["string", "int64", "float64", "timestamp", "bytes"]  # bytes: a file
    nullable: bool = False
    unique: bool = False
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None
    max_length: int | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """How the source is read and checked.

    columns: name in the task -> name in the source; a source without a header uses positions "0", "1", ...; "#row"
    gives the number of the row, for a source without ids. quoted: `"` delimits values that have delimiters or line
    breaks in them; false where it is an ordinary character.
    encoding: of text, for example gb18030; "" is what the byte order mark says, else UTF-8. decimal, thousands: the
    signs in numbers. times: column of the task -> how its moments are written: "s", "ms", "us" or "ns" (since 1970),
    "excel" (days of Excel), "dayfirst", "monthfirst", or a format as of strptime; without it ISO 8601. zone: of moments
    that have none, for example Europe/Berlin.
    pii: column -> what happens to personal data in it (pipelines.data.personal): keep, or one of mask, label, hash,
    encrypt, surrogate and drop, to what is found in its values; with ":whole" behind, to each value as a whole.
    tagger: what finds names, places and organisations in the columns of `pii`: the folder of a bundle whose answers are
    spans, or presidio, see `contracts.pii.finders`.
    pii_labelled: a file of texts with labelled spans, by which the run measures how well personal data is found.
    tagged: text files have a token and its tag on each line, and an empty line between texts (CoNLL, IOB); their
    columns are called text and spans.
    adjacency: text files have a name and all that it goes with on each line, separated by spaces (``user item item
    ...``); columns are called id, user, item and part, which is what the file is called: train, valid or test.
    classes: of images, the names that the source may have, as it writes them; (): any, or those of the task.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    header: bool = True
    delimiter: str = ","
    quoted: bool = True
    encoding: str = ""
    tagged: bool = False
    adjacency: bool = False
    classes: tuple[str, ...] = ()
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ".", ",", " ", "'"] = ""
    times: Mapping[str, str] = field(default_factory=dict)
    zone: str = "UTC"
    drop: tuple[str, ...] = ()
    pii: Mapping[str, str] = field(default_factory=dict)
    tagger: str = ""
    pii_labelled: str = ""
    allow_leakage: tuple[str, ...] = ()
    max_bad_share: float = 0.05
    leakage_auc: float = 0.99


_CHECKS = ("pii_labelled", "allow_leakage", "max_bad_share", "leakage_auc")


def reading_settings(data: DataConfig) -> dict[str, Any]:
    """What decides how a source is read, as JSON values; not what is checked afterwards."""
    found: dict[str, Any] = TypeAdapter(DataConfig).dump_python(data, mode="json")
    return {key: value for key, value in found.items() if key not in _CHECKS}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Threshold:
    """One rule of the gate: `metric` (``"slice:value:metric"`` for a slice) against a fixed limit."""

    metric: str
    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.minimum is None) == (self.maximum is None):
            raise ValueError(f"the rule for {self.metric} needs either a minimum or a maximum")
        return self

    @property
    def limit(self) -> float:
        """The one that is given."""
        return float(self.minimum if self.minimum is not None else self.maximum)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FairnessConfig:
    """How differently a model may treat the groups of a task's sensitive columns; a limit of None is not asked for.

    columns: those that are judged, each apart; empty for all.  intersections: whether every two of them are judged too.
    min_rows: groups with fewer rows of the test are named and not judged.
    selection_ratio: least rate of the good answer in one group over that in another; 0.8 is the four-fifths rule of US
    employment law, a warning sign and no proof.  tpr_gap, fpr_gap: most that the rates of the good answer may differ
    among those who deserve it, and among those who do not.  calibration_gap: most that the mean chance of a group may
    differ from what came true.
    """

    columns: tuple[str, ...] = ()
    intersections: bool = False
    min_rows: int = 100
    selection_ratio: float | None = None
    tpr_gap: float | None = None
    fpr_gap: float | None = None
    calibration_gap: float | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PrivacyBudget:
    """What the private models of one version of a data set may cost together.

    epsilon: with the model that is judged; None for no limit.  delta: at which costs are added up.  required: a model
    that is not private is refused.
    """

    epsilon: Annotated[float, Field(gt=0)] | None = 8.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    required: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SuiteGate:
    """A suite that models which write are asked (pipelines.suites): `name` or file, and by metric the least value.

    version: of its content, written when a run is configured.
    """

    name: str = ""
    minimum: Mapping[str, Annotated[float, Field(ge=0, le=1)]] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GateConfig:
    """Fixed thresholds, and how far the candidate may fall behind the champion on rows that neither has learned from.

    primary: the metric that models are compared by, one of `Evaluation.metric_names`; "" is what the problem usually
    takes, `Evaluation.usual`, and is so written when a configuration is loaded.
    champion_tolerance: a candidate is refused when it is behind by more and the 95 % interval of the difference (paired
    bootstrap) is below zero as a whole. unsure: what becomes of one that the rows show neither to be worse in this way
    nor to be within the tolerance; "refuse" makes the check a classical test of non-inferiority. min_compared_rows:
    with fewer different rows left, the champion's recorded value is compared.
    max_copied: share of generated images that may be copies of training images.
    int8_tolerance: how much of `primary`, measured on the validation rows, weights of 8 bits may cost; when they cost
    more, the model is served as it was trained.
    """

    thresholds: tuple[Threshold, ...] = ()
    primary: str = ""
    champion_tolerance: float = 0.01
    unsure: Literal["pass", "refuse"] = "pass"
    min_compared_rows: int = 20
    int8_tolerance: float = 0.005
    max_latency_ms: float = 50.0
    max_bundle_mb: float = 500.0
    max_copied: float = 0.0
    fairness: FairnessConfig = field(default_factory=FairnessConfig)
    privacy: PrivacyBudget = field(default_factory=PrivacyBudget)
    redaction: RedactionLimits = field(default_factory=RedactionLimits)
    suite: SuiteGate = field(default_factory=SuiteGate)
    tuning: TuningLimits = field(default_factory=TuningLimits)
    explanations: ExplanationLimits = field(default_factory=ExplanationLimits)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaskConfig:
    """A configuration that can train; a recipe is a named instance. Subclasses add `model` and more, and `train`.

    A class of a section may declare ``SPACE``, what a search of it may change: key -> `Dimension`.
    """

    recipe: str
    seed: int = 7
    data: DataConfig = field(default_factory=DataConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    rollout: RolloutPolicy = field(default_factory=RolloutPolicy)
    loop: LoopPolicy = field(default_factory=LoopPolicy)
    search: SearchConfig = field(default_factory=SearchConfig)

    # A recipe whose training reports a loss as it goes names it here, so that a search may end hopeless trials early.
    reports: ClassVar[str] = ""

    def training_part(self) -> Self:
        """The configuration without what gate, rollouts and loop look at, so that another limit trains nothing again.

        A recipe whose training reads `gate` keeps the fields that it reads: a private one the budget, which may not
        allow it.
        """
        kept = GateConfig(privacy=self.gate.privacy) if self.is_private else GateConfig()
        metrics = self.search.metrics or (self.gate.primary,)
        search = replace(self.search, metrics=metrics) if self.search.trials else SearchConfig()
        return replace(self, gate=kept, rollout=RolloutPolicy(), loop=LoopPolicy(), search=search)

    @property
    def is_private(self) -> bool:
        """Whether training is differentially private, by a setting ``privacy`` that some recipes have."""
        return bool(getattr(getattr(self, "privacy", None), "is_on", False))

    @property
    def mitigates(self) -> bool:
        """Whether groups are to be treated alike, by a setting ``mitigation`` that some recipes have."""
        return bool(getattr(getattr(self, "mitigation", None), "is_on", False))

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Train on ``dataset/{train,valid}.parquet`` and write the self-contained model files to `out`.

        Called on `training_part`; `task` says which inputs and classes the data set has.

        Returns a dict with ``engine`` (see contracts/engines), ``output`` (of the signature, see contracts/problems;
        ``{"problem": "classification", "classes": [...]}``), ``decision`` (a contracts.bundle.Decision as dict, or
        None), ``history`` (list of dicts, one per round or epoch, may be empty), ``parameters`` (flat dict to log) and
        ``device``; if it was private, ``privacy`` (see `pipelines.training.privacy.charge`); and, if it chose between
        forms of the model, ``choices`` (list of contracts.bundle.Check as dicts: what passed is
        served) and ``tolerance`` (how far answers may lie from the golden ones, where arithmetic is less than exact).
        Must resume from `checkpoints` after a kill.
        """
        raise PlatformError(
            f"recipe {self.recipe} of task {task.name} cannot train",
            detail=f"its class {type(self).__name__} has no method train",
            fix="give it one, see TaskConfig.train in pipelines/task.py, or take a class of pipelines/recipes/",
            code="bad_task",
        )


_Config = TypeVar("_Config")


def dump_config(config: TaskConfig) -> str:
    """A configuration as JSON; `load_config` is its inverse."""
    text: bytes = TypeAdapter(type(config)).dump_json(config)
    return text.decode()


def data_config(layout: Mapping[str, Any], overrides: Mapping[str, Any]) -> DataConfig:
    """How a source is read that no task is asked about: the `layout` of a bundle with dotted `overrides` applied.

    Raises:
        PlatformError: a key that is none of ``data``, or a value of the wrong type.
    """
    known = json.loads(TypeAdapter(DataConfig).dump_json(DataConfig()))
    document = {"data": {**known, **{key: value for key, value in layout.items() if key in known}}}
    for key, value in overrides.items():
        apply(document, key, value)
    return validated(DataConfig, document["data"])


def validated(kind: type[_Config], document: dict[str, Any]) -> _Config:
    """A configuration of a document.

    Raises:
        PlatformError: ``code="bad_config"``: unknown key or a value of the wrong type, with what is accepted.
    """
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as err:
        lines = [_complaint(e) for e in err.errors()]
        raise PlatformError(
            "invalid configuration", detail="\n  ".join(lines), fix="correct the keys given by --set", code="bad_config"
        ) from err


def _complaint(error: Mapping[str, Any]) -> str:
    """What pydantic says of a value; of a whole section, whose parts do not fit together, without all that is in it."""
    place, value = ".".join(map(str, error["loc"])), error.get("input")
    parts = [] if isinstance(value, dict) else [f"got {value!r}"]
    return f"{place}: " * bool(place) + "; ".join([*parts, str(error["msg"]).removeprefix("Value error, ")])


def problem_of(task: Task) -> str:
    """The name of the task's problem."""
    found: str = getattr(task, "problem", "classification")
    return found


def is_scale(task: Task, config: TaskConfig) -> bool:
    """Whether the classes are a scale, from the lowest to the highest: always, or by the configuration's ``order``."""
    return bool(getattr(task, "ordered", False) or getattr(config, "order", ()))


def class_output(task: Task, config: TaskConfig, classes: Sequence[str]) -> dict[str, Any]:
    """``output`` of a classification, as `TaskConfig.train` returns it."""
    scale = {"ordered": True} if is_scale(task, config) else {}
    return {"problem": "classification", "classes": list(classes), **scale}


@dataclass(frozen=True, kw_only=True)
class AddedStep:
    """A step that a task adds to its runs: it makes anew what an earlier step made, and later steps get that.

    It is cached, recorded and shown like the others, and on a cluster it has the pod and the needs of the step that it
    is after. Several after one step run in their order, each on what the one before it made.

    Attributes:
        after: validate (a folder of clean parts), build_dataset (the data set) or train (the model's files and
            ``train.json``).
        work: ``work(config, given, out, checkpoints, progress)`` writes a whole folder of the same form to `out`, an
            empty one, and returns what is shown of it, as JSON values. `given` has by step the folder of what `after`
            and `takes` made, which must stay as it is. `config` is without what the step may not depend on: after
            validate it is the same for all recipes that share their data, later it is `TaskConfig.training_part`.
            `checkpoints` is a folder that is the same when the same work is started again.
        takes: other steps of those three, before it, whose output it reads.
    """

    after: str
    work: Callable[[Any, Mapping[str, Path], Path, Path, Progress], Mapping[str, Any]]
    takes: tuple[str, ...] = ()


class Task(Protocol):
    """A task: what is predicted, from which data, by which recipes. Lives in ``pipelines/tasks/<name>/``.

    A task's ``__init__.py`` has ``TASK``, an instance; importing it must stay cheap (no pandas, torch or sklearn).
    """

    name: str
    title: str
    modality: str
    columns: tuple[Column, ...]
    label: str
    id: str
    timestamp: str | None
    entities: tuple[str, ...]
    classes: tuple[str, ...] | None  # None: learned from the training data, sorted
    feature_service: str | None
    recipes: Mapping[str, TaskConfig]
    default_recipe: str

    def default_source(self, config: Any) -> Iterator[pa.Table]:
        """The built-in data (simulator or shipped sample), in chunks, columns named and typed as `columns`."""
        ...

    def write_features(self, clean: Path, out: Path, progress: Progress) -> None:
        """Write the history of each Feast source below `out` (paths as in feature_repo/<task>.py).

        Called only when `feature_service` is set. `clean` holds the validated parts ``part-*.parquet``. A task may have
        ``history_config`` and ``with_features``, see `pipelines.recipes.recommend.task`.
        """

    def split(self, frame: pd.DataFrame, config: Any) -> dict[str, pd.DataFrame]:
        """Split the joined frame into ``train``, ``valid`` and ``test``.

        `frame` has the clean columns and, after the join, one column per feature. The result's frames have the
        columns of `inputs`, plus ``id`` (column `id` as a string), ``label`` (the class's name as a string; in a
        regression a number) and any number of ``slice_<name>`` (string) columns that metrics are kept for;
        `pipelines.data.hidden` adds the slices ``features:...``. ``row_key`` (string) may say what a row is known by
        in another version of the data, where that is not the id; no row should change its part because of the seed.
        A column of files has numbers, which stand for the files of `pipelines.data.file_rows`.
        """
        ...

    # A task may have ``problem``, the name of its problem; without it, it is a "classification".
    # A task may have ``ordered``: its classes are a scale, from the lowest to the highest.
    # A task may have ``resources``, what its steps need on a cluster: step or "all" -> key -> value, as in --set.
    # A task may have ``steps``, which it adds to its runs: name -> `AddedStep`.
    # A task may have ``sensitive``, columns that say whom a row is about, see `pipelines.data.sensitive`.
    # A task may have ``favourable``, the class that is good for whom it is about; else it is the positive one.
    # A task may have ``reason_texts``, what people are told of a reason: input -> {"en": ..., "zh": ...}.
    # A task may have ``changes``, the inputs that a counterfactual may change: input -> "up", "down" or "any".
    # A task may have ``variants(frame, config)``: test rows as they may also arrive, as slices of that name.
    # A task of images may have ``entries(source, column, label, data)``, see `pipelines.data.image_sources.entries`.
    # A task may have ``left_out(frame, frames, config)``: why rows are in no part of the split, a mask by reason.

    def inputs(self, config: Any) -> list[Input]:
        """The model's inputs, in order, with their source (request, online, on_demand) and defaults."""
        ...

    def request(self, config: Any) -> list[Input]:
        """Fields that a request must carry for on-demand features; empty without them."""
