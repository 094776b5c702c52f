"""Checkpoints of a training loop: one file, replaced atomically, read without running any code in it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


class Checkpoint:
    """The file that a killed run continues from.

    Args:
        path: the file.  fingerprint: names configuration and data; a file of another fingerprint is ignored, so that
            a run never continues from what was trained on something else.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint

    def save(self, tensors: dict[str, Any], notes: dict[str, Any]) -> None:
        """Write `tensors` (nested dicts and lists of tensors and numbers) and `notes` (JSON), whole or not at all."""
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**notes, "fingerprint": self.fingerprint})
        handle, staging = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                torch.save({"tensors": tensors, "notes": text}, stream)
            os.replace(staging, self.path)
        except BaseException:
            Path(staging).unlink(missing_ok=True)
            raise

    def load(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The tensors (on the CPU) and notes last saved; None when there are none, or only those of something else."""
        import torch

        if not self.path.exists():
            return None
        found = torch.load(self.path, map_location="cpu", weights_only=True)
        notes = json.loads(found["notes"])
        return (found["tensors"], notes) if notes.pop("fingerprint") == self.fingerprint else None
