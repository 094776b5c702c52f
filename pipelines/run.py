"""What a run is asked, as one JSON document.

The command line makes it, the runner of this machine and the pods of a cluster take their values from it, the record of
a run holds it, and a run that is resumed or started again is the same document with what was changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator

from contracts.endpoints import Endpoints

ASKED = "asked"
"""Where the record of a run, and a pipeline with a task for every step, hold the document."""


class Placing(BaseModel):
    """Where a run on a cluster runs its steps.

    Attributes:
        image: of the steps; empty is the platform's.
        train_gpus: of each pod that trains.
        train_nodes: pods that train together.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    image: str = ""
    train_gpus: int = 0
    train_nodes: int = 1

    def having(self, other: Placing) -> Placing:
        """The same with what `other` says."""
        return self.model_copy(update=other.model_dump(exclude_defaults=True))


class Run(BaseModel):
    """What a run is asked. Records of earlier versions can be read too.

    Attributes:
        run_id: its name; empty in a schedule, whose runs name themselves.
        config: the whole configuration of the task, or the settings of a batch by dotted key.
        source: rows, as a path or address; empty is the task's built-in data.
        dataset: the version to train on, for the workflow ``training``; empty is the only one.
        model, out, to: of the workflow ``batch_scoring``: what scores, the new folder for a copy of the scores, and a
            collection for them.
        settings: of the run and not of its task, by dotted key (`pipelines.run_settings`).
        distributed_job: how several pods train (`pipelines.training`); empty where one does.
        nonce: steps of another one do not come from the cache, so a run that has its own runs every step once.
        code_version: the code that the run was started with; empty is any.
        schedule: the schedule that starts the run.
        profile: of the command line that asks; it names commands to paste.
        prices: of an hour of a machine, of the profile that asks (`pipelines.cost.Prices`); empty without.
        changed: what is other than in the attempt before, by dotted key.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str = ""
    workflow: str = "full"
    task: str = ""
    recipe: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    source: str = ""
    dataset: str = ""
    model: str = ""
    out: str = ""
    to: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    placing: Placing = Placing()
    distributed_job: dict[str, Any] = Field(default_factory=dict)
    endpoints: Endpoints | None = None
    nonce: str = ""
    promote: bool = True
    code_version: str = ""
    schedule: str = ""
    prices: dict[str, Any] = Field(default_factory=dict)
    profile: str = Field(default="", exclude=True)
    changed: dict[str, Any] = Field(default_factory=dict, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        known = {name: value for name, value in given.items() if value is not None}
        if not known.get("workflow", True):
            del known["workflow"]
        if known.get("no_cache") and not known.get("nonce"):  # all that earlier versions said of it
            known["nonce"] = known.get("run_id", "")
        if "-" in (workflow := str(known.get("workflow", ""))):  # of the object of Kubeflow: batch-scoring-x2k4f
            known["workflow"] = workflow.rpartition("-")[0].replace("-", "_")
        config = known.get("config")
        if not known.get("recipe") and isinstance(config, Mapping) and config.get("recipe"):
            known["recipe"] = config["recipe"]
        return known

    @field_serializer("placing")
    def _given(self, placing: Placing) -> dict[str, Any]:
        return placing.model_dump(exclude_defaults=True)

    @property
    def where(self) -> Endpoints:
        """Its addresses."""
        return self.endpoints or Endpoints.model_validate({})

    def document(self) -> dict[str, Any]:
        """The document as JSON has it."""
        return self.model_dump(mode="json")

    def having(self, **changes: Any) -> Run:
        """The same run with these fields changed."""
        return self.model_copy(update=changes)


def new_run_id(task: str, kfp_run: str = "") -> str:
    """A name for a run that nobody named, which sorts by time and may say which run of Kubeflow it is.

    For example ``fraud-20260102-030405-9f3c``.
    """
    return f"{task}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{kfp_run[:4] or secrets.token_hex(2)}"


def standing(record: Mapping[str, Any]) -> dict[str, Any]:
    """How the run of a `shown` record stands, without what it was asked."""
    return {name: value for name, value in record.items() if name not in Run.model_fields}


def shown(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as one level, as lists and reports show it; records of earlier versions have no other."""
    return {**record.get(ASKED, {}), **{name: value for name, value in record.items() if name != ASKED}}
