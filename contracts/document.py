"""The base of every document that is written as JSON and read again later."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """Base of every document in a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")
