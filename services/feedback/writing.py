"""Writes labels and annotations beside the predictions that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from contracts import storage
from contracts.errors import PlatformError
from services.feedback import layout
from services.feedback.line_file import append
from services.feedback.records import Annotation, Label, line_of

_one_at_a_time = Lock()


def write_labels(folder: str, model: str, labels: Sequence[Label]) -> None:
    """Add labels to the log of a model, all or none; they are kept when this returns.

    Raises:
        PlatformError: ``code="labels_not_written"``, or the storage's own.
    """
    _write(folder, model, "labels", labels)


def write_annotations(folder: str, model: str, annotations: Sequence[Annotation]) -> None:
    """Add annotations to the log of a model, as `write_labels`.

    Raises:
        PlatformError: ``code="annotations_not_written"``, or the storage's own.
    """
    _write(folder, model, "annotations", annotations)


def _write(folder: str, model: str, kind: layout.Kind, records: Sequence[Label | Annotation]) -> None:
    home, lines = layout.home(folder, model, kind), b"".join(map(line_of, records))
    if storage.is_remote(home):
        storage.write_bytes(layout.new_object(home), lines)
        return
    file = layout.own_file(home)
    try:
        with _one_at_a_time:
            append(file, lines)
    except OSError as err:
        raise PlatformError(
            f"the {kind} could not be written, and none of them was",
            detail=f"{file}: {err.strerror or err}",
            fix="free space or correct the folder of the prediction log, and send them again",
            code=f"{kind}_not_written",
        ) from err
