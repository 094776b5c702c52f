"""The modality ``image``: files are decoded per request, so that a bad one fails its own request alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from contracts.engine import DecodingEngine, Engine, UnreadableError
from services.errors import invalid
from services.feedback.api import FEEDBACK
from services.image.multipart import parse_form
from services.image.stream import STREAM, ImageRuntime
from services.model.predict import PREDICT
from services.model.request_schema import Batch, RequestSchema
from services.model.rows import Rows, check_count
from services.oip.routes import OIP
from services.server.lifecycle import Modality
from services.settings import ServiceSettings


class ImageRows(Rows):
    """Images, as pixels in the place of files; a body may be a form of files, or one file."""

    def __init__(self, engine: Engine, settings: ServiceSettings) -> None:
        super().__init__(engine, settings)
        self.threads = settings.workers
        self._files = engine if isinstance(engine, DecodingEngine) else None

    def prepared(self, batch: Batch) -> Batch:
        """The rows with pixels in the place of files.

        Raises:
            Problem: 422, naming the files that cannot be decoded.
        """
        if self._files is None:
            return batch
        try:
            return replace(batch, columns=self._files.decode(batch.columns, self.settings.max_image_pixels))
        except UnreadableError as err:
            raise invalid([(batch.where.format(row=row, name=name), text) for row, name, text in err.errors]) from None

    def is_quick(self, batch: Batch) -> bool:
        """Never: decoding takes milliseconds."""
        return False

    def reads(self, media: str) -> bool:
        """Whether a body of this media type has files."""
        return media.startswith("image/") or media in ("multipart/form-data", "application/octet-stream")

    def read(self, schema: RequestSchema, content_type: str, body: bytes) -> Batch:
        """The files of a form, or the one that is the whole body.

        Raises:
            Problem: 413 and 422.
        """
        field = schema.fields[0]
        if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
            return schema.batch({field.name: [body]}, where="(body)")
        parts = parse_form(content_type, body)
        accepted = dict.fromkeys((field.name, "file"))
        errors = [
            (one.name[:64] or "(part)", f"unknown part; accepted, once for each file: {', '.join(accepted)}")
            for one in parts
            if one.name not in accepted
        ]
        if not parts:
            errors.append(("file", "expected at least one part with a file"))
        if errors:
            raise invalid(errors)
        check_count(len(parts), self.settings.max_instances)
        return schema.batch({field.name: [bytes(one.content) for one in parts]}, where="file[{row}]")

    def bodies(self, schema: RequestSchema) -> dict[str, Any]:
        """A form of files, and a file as the whole body."""
        file = {"type": "string", "format": "binary"}
        names = dict.fromkeys(("file", schema.fields[0].name))
        properties = {part: {"type": "array", "items": file} for part in names}
        form = {"type": "object", "additionalProperties": False, "minProperties": 1, "properties": properties}
        raw = {media: {"schema": file} for media in ("application/octet-stream", "image/*")}
        return {"multipart/form-data": {"schema": form}, **raw}


MODALITY = Modality(name="image", runtime=partial(ImageRuntime, rows=ImageRows), apis=(PREDICT, OIP, FEEDBACK, STREAM))
