"""Writes labels beside the predictions that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from contracts import storage
from contracts.errors import PlatformError
from services.feedback import layout
from services.feedback.line_file import append
from services.feedback.records import Label, line_of

_one_at_a_time = Lock()


def write_labels(folder: str, model: str, labels: Sequence[Label]) -> None:
    """Add labels to the log of a model, all or none; they are kept when this returns.

    Raises:
        PlatformError: ``code="labels_not_written"``, or the storage's own.
    """
    home, lines = layout.home(folder, model, "labels"), b"".join(map(line_of, labels))
    if storage.is_remote(home):
        storage.write_bytes(layout.new_object(home), lines)
        return
    file = layout.own_file(home)
    try:
        with _one_at_a_time:
            append(file, lines)
    except OSError as err:
        raise PlatformError(
            "the labels could not be written, and none of them was",
            detail=f"{file}: {err.strerror or err}",
            fix="free space or correct the folder of the prediction log, and send them again",
            code="labels_not_written",
        ) from err
