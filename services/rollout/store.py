"""Where the rollouts of a model are kept: one document, and what was asked for meanwhile; a folder of this machine.

What is asked for is a file of its own. It is answered in the same write that changes the state, so that a restart does
it once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from contracts import storage
from contracts.document import Document
from contracts.errors import PlatformError
from contracts.rollout_policy import RolloutPolicy, Strategy
from services.rollout.state import Rollout

_ANSWERS = 50  # that are kept for who asked


class Place(Document):
    """Where the bundle of a version is, and which one it is."""

    source: str
    digest: str


class Request(Document):
    """What a person or the loop asks for; `place` is the candidate's, for who fetches bundles by their address."""

    id: str
    command: Literal["start", "pause", "resume", "promote", "abort"]
    actor: str
    reason: str = ""
    candidate: str = ""
    strategy: Strategy = "canary"
    policy: RolloutPolicy = RolloutPolicy()
    place: Place | None = None


class Served(Document):
    """A model that is served: by which version, and its rollout, now or the last one.

    Attributes:
        looked: when it was last looked after.  pid: who looks after it.
        answers: by request, None when it was done, else the error.  outcomes: how many rollouts ended in which way.
        places: where the bundles of its versions are, as far as requests said.
    """

    model: str
    version: str
    pid: int = 0
    looked: float = 0
    url: str = ""
    rollout: Rollout | None = None
    answers: dict[str, dict[str, Any] | None] = Field({})
    outcomes: dict[str, int] = Field({})
    places: dict[str, Place] = Field({})

    def answered(self, request: str, error: PlatformError | None) -> Served:
        """The same, with one more answer."""
        kept = dict(list(self.answers.items())[-_ANSWERS + 1 :])
        return self.model_copy(update={"answers": {**kept, request: error.as_dict() if error else None}})


class Store:
    """The documents of all models below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def models(self) -> list[str]:
        """Models that were ever served with rollouts, sorted."""
        return sorted(file.stem for file in self.folder.glob("*.json"))

    def read(self, model: str) -> Served | None:
        """The document of a model; None when it was never served with rollouts.

        Raises:
            PlatformError: ``code="bad_rollout"``: the file is damaged.
        """
        file = self.folder / f"{model}.json"
        try:
            return Served.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as err:
            raise PlatformError(
                f"the state of {model}'s rollouts cannot be read: {file}",
                detail=str(err),
                fix="move the file away: the model is then served by its champion, without a rollout",
                code="bad_rollout",
            ) from err

    def write(self, served: Served) -> None:
        """Replace the document whole."""
        storage.write_bytes(str(self.folder / f"{served.model}.json"), served.model_dump_json().encode())

    def ask(self, model: str, request: Request) -> None:
        """Leave a request for who looks after the model."""
        storage.write_bytes(str(self._asked(model) / f"{time.time_ns():020d}.json"), request.model_dump_json().encode())

    def asked(self, model: str) -> Iterator[tuple[Path, Request]]:
        """Requests that wait, the oldest first; files that are none are removed."""
        for file in sorted(self._asked(model).glob("*.json")):
            try:
                yield file, Request.model_validate_json(file.read_bytes())
            except (ValidationError, FileNotFoundError):
                file.unlink(missing_ok=True)

    def done(self, mark: Path) -> None:
        """Take a request away that was answered."""
        mark.unlink(missing_ok=True)

    def _asked(self, model: str) -> Path:
        return self.folder / f"{model}.requests"
