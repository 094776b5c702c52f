"""Where the pages' documents come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from services.console.documents import Alert, Answer, AuditPage, Link, Model, ModelPage, Run, RunPage, Stage


class Source(Protocol):
    """Where the documents come from. Every method may raise PlatformError, which becomes a page."""

    @property
    def place(self) -> str:
        """The home or profile that is shown."""
        ...

    @property
    def links(self) -> Sequence[Link]:
        """Pages of other tools of the platform."""
        ...

    def models(self) -> Sequence[Model]:
        """All models, by name."""
        ...

    def model(self, name: str) -> ModelPage | None:
        """One model; None where there is none of this name."""
        ...

    def bundle_file(self, name: str, version: str, file: str) -> bytes | None:
        """A page of a version's bundle, one of `Version.files`."""
        ...

    def runs(self, limit: int) -> Sequence[Run]:
        """The latest runs, newest first."""
        ...

    def run(self, run_id: str) -> RunPage | None:
        """One run; None where there is none of this id."""
        ...

    def rollouts(self) -> Sequence[Stage]:
        """The latest rollout of each model."""
        ...

    def alerts(self) -> Sequence[Alert] | None:
        """Alerts that are pending or firing; None where no Prometheus is asked."""
        ...

    def audit(self, page: int, size: int) -> AuditPage | None:
        """Page `page`, from 1 on, of the audit log; None where nothing was written yet."""
        ...

    def steer(self, model: str, command: str, actor: str, reason: str) -> None:
        """Pause, resume, promote or abort the rollout of a model; it is done when this returns."""
        ...

    def predict(self, name: str, instance: Mapping[str, Any], explain: bool, key: str) -> Answer:
        """Ask a model's endpoint; with an API key of the reader's own, where one is given."""
        ...
