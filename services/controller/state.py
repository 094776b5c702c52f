"""What the controller knows of one model between two passes, and what it has decided and may not have done yet."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from contracts import storage
from contracts.document import Document
from contracts.errors import PlatformError

Phase = Literal["watching", "asking", "running", "stopped"]


class Source(Document):
    """The rows that runs read, as they were at one moment."""

    fingerprint: str
    rows: int | None = None


class Action(Document):
    """Something that is to be done once.

    Attributes:
        id: no other action of the model has it; the audit log and, of a start, the run's own id say it again.
        kind: what is done besides the note in the audit log.
        word: of the audit log.
    """

    id: str
    kind: Literal["note", "start_run", "start_rollout"] = "note"
    word: str
    subject: str
    reason: str = ""
    evidence: dict[str, Any] = Field({})


class WatchState(Document):
    """The state of one model's loop.

    Attributes:
        reason: what the last pass found, for people.
        next_time: when a run may start at the earliest; None where nothing but a reason is missing.
        run: the run in progress; `began` is its start, `trouble` why it could not be started, `changed` whether the
            world had changed: its model is meant to answer differently.
        started: the starts of the latest runs, oldest first.
        count: runs so far.
        failures: failed runs in a row.
        found: since when a drift or a drop is seen.
        asked: since when a person is asked; stopped: since when nothing starts before a person says so.
        candidate: the version that passed the gate last.  rollout: the action that asked for its rollout, until that
            ends.
        refused: the version that a rollout refused last, at `refused_at`, and `refusal` why; until a run starts.
        source: the rows as they were when the last run started, or when they were seen first.
        pending: decided and, as far as is known, not done.
    """

    model: str
    task: str
    since: datetime
    phase: Phase = "watching"
    reason: str = ""
    next_time: datetime | None = None
    run: str = ""
    began: datetime | None = None
    trouble: str = ""
    changed: bool = False
    started: tuple[datetime, ...] = ()
    count: int = 0
    failures: int = 0
    asked: datetime | None = None
    found: datetime | None = None
    stopped: datetime | None = None
    candidate: str = ""
    rollout: str = ""
    refused: str = ""
    refused_at: datetime | None = None
    refusal: str = ""
    source: Source | None = None
    pending: tuple[Action, ...] = ()

    @property
    def last_start(self) -> datetime | None:
        """The start of the latest run."""
        return self.started[-1] if self.started else None

    def having(self, **changes: Any) -> WatchState:
        """The same with these fields changed."""
        return self.model_copy(update=changes)


class States:
    """The documents of all models below one address; each is written whole."""

    def __init__(self, place: str) -> None:
        self.place = place

    def read(self, model: str) -> WatchState | None:
        """The state of a model; None where it was never watched.

        Raises:
            PlatformError: ``code="bad_state"``: the document cannot be read.
        """
        text = self._read(model, "state")
        try:
            return WatchState.model_validate_json(text) if text else None
        except ValueError as err:
            raise PlatformError(
                f"the state of {model} cannot be read",
                detail=f"{self._address(model, 'state')}: {err}",
                fix="remove the file; runs of this week are then not counted",
                code="bad_state",
            ) from err

    def write(self, state: WatchState) -> None:
        """Keep the state of a model."""
        storage.write_bytes(self._address(state.model, "state"), state.model_dump_json(indent=1).encode())

    def said(self, model: str, word: Literal["approve", "resume"]) -> datetime | None:
        """When a person said this of the model last."""
        text = self._read(model, word)
        return datetime.fromisoformat(text.decode()) if text else None

    def say(self, model: str, word: Literal["approve", "resume"], now: datetime) -> None:
        """Note what a person says; the next pass reads it."""
        storage.write_bytes(self._address(model, word), now.isoformat().encode())

    def _read(self, model: str, name: str) -> bytes:
        try:
            return storage.read_bytes(self._address(model, name))
        except PlatformError as err:
            if err.code != "not_found":
                raise
            return b""

    def _address(self, model: str, name: str) -> str:
        return storage.join(self.place, model, f"{name}.json" if name == "state" else name)
