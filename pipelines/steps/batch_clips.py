"""Score clips with a detector: what is in each frame, which object it is, and what happens in zones."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.bundle import Bundle
from contracts.errors import PlatformError
from contracts.settings import Settings, load
from contracts.storage import write_bytes
from contracts.video.settings import VideoSettings
from contracts.video.stream import Following, Sampler, check_places
from pipelines.data.clips import ENDINGS, WRITTEN, Clip, ClipWriter, Frame, ahead, clips_in
from pipelines.evaluation import scoring
from pipelines.io import events
from pipelines.io.files import write_json

if TYPE_CHECKING:
    from contracts.engine import Engine
    from contracts.problems.detection import DetectionOutput, Detections

PREFIX, DRAW = "video.", "video.draw"  # of settings of a batch
_AT_ONCE, _PIXELS_AT_ONCE = 8, 8_000_000  # frames, and their pixels, of one call of the model
_COLOURS = ("#17a34a", "#2563a8", "#d9730d", "#9333ea", "#dc2626", "#0891b2", "#b45309", "#be185d")
_LEAST_SIDE = 360  # of a drawn clip


class _Asked(Settings):
    video: VideoSettings = VideoSettings.model_validate({})


@dataclass(frozen=True, kw_only=True)
class ClipWork:
    """What is asked of clips.

    Attributes:
        draw: where the clip with its boxes is written, of several ``out-2.mp4`` and so on; empty for nowhere.
    """

    video: VideoSettings = field(default_factory=lambda: VideoSettings.model_validate({}))
    draw: str = ""

    def drawn(self, number: int) -> Path | None:
        """The file of the clip with this number, from 1 on."""
        if not self.draw:
            return None
        target = Path(self.draw).expanduser()
        return target if number == 1 else target.with_stem(f"{target.stem}-{number}")


def parted(settings: Mapping[str, Any]) -> tuple[dict[str, Any], ClipWork | None]:
    """Settings of a batch that are not of clips, and what is asked of clips; None where nothing is.

    Raises:
        PlatformError: ``code="bad_settings"``, naming the key.
    """
    own = {key: value for key, value in settings.items() if key.startswith(PREFIX)}
    if not own:
        return dict(settings), None
    draw = str(own.get(DRAW, ""))
    if draw and Path(draw).suffix.lower() not in WRITTEN:
        raise PlatformError(
            f"no clip can be written to {draw}",
            detail=f"accepted endings: {', '.join(WRITTEN)}",
            fix="--draw out.mp4",
            code="bad_input",
        )
    asked = load(_Asked, environ={}, overrides={key: value for key, value in own.items() if key != DRAW})
    return {key: value for key, value in settings.items() if key not in own}, ClipWork(video=asked.video, draw=draw)


def asked_of(work: ClipWork | None, to: str, others: Mapping[str, Any]) -> ClipWork:
    """What is asked of clips, where a source has some.

    Raises:
        PlatformError: ``code="bad_config"``: a collection, or a setting of rows, is asked of them too.
    """
    if to or others:
        raise PlatformError(
            "clips have no rows",
            detail=f"given: {', '.join(['--to'] * bool(to) + sorted(others))}",
            fix="leave it out; --set video.rate=5 and its like say how clips are looked at",
            code="bad_config",
        )
    return work or ClipWork()


def check_none(work: ClipWork | None, source: str) -> None:
    """Refuse settings of clips where there is none.

    Raises:
        PlatformError: ``code="bad_source"``.
    """
    if work is not None:
        raise PlatformError(
            "there is no clip to score",
            detail=f"{source or 'the source'} has none; their names end in {', '.join(ENDINGS)}",
            fix="give a clip or a folder of clips, or leave --draw and video.* out",
            code="bad_source",
        )


def score_clips(
    model: str, bundle: Bundle, engine: Engine, clips: Sequence[Path], root: Path, out: Path, work: ClipWork
) -> dict[str, Any]:
    """Write ``NAME.jsonl`` for each clip, a line for each frame that was looked at, and ``summary.json`` to `out`.

    A clip that cannot be read is named in the summary; if all are such, the first one's reason is the failure. What is
    finished of a batch that was stopped is kept beside `out`, and is not done again.

    root: the folder that names are below.
    """
    output = _output(bundle)
    asked = {"digest": bundle.digest, "video": work.video.model_dump(mode="json"), "draw": work.draw}
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    part = out.parent / f".{out.name}.clips-{key}"
    part.mkdir(parents=True, exist_ok=True)
    told: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    first: PlatformError | None = None
    report = events.progress("batch_score")
    for number, (clip, name) in enumerate(zip(clips, _names(clips, root), strict=True), 1):
        stamp = clip.stat()
        about = {"source": str(clip), "bytes": stamp.st_size, "changed": stamp.st_mtime_ns}
        done = part / f"{name}.done.json"
        target = work.drawn(number)
        kept = json.loads(done.read_bytes()) if done.is_file() else {}
        if kept.get("of") == about and (target is None or target.exists()):
            told.append(kept["clip"])
            continue
        try:
            one = _one(bundle, engine, output, clip, name, part, work, target, report)
        except PlatformError as err:
            if err.code != "bad_source":
                raise
            first = first or err
            refused.append({"clip": name, "reason": f"{err.headline}: {err.detail}"})
            continue
        write_bytes(str(done), json.dumps({"of": about, "clip": one}).encode())
        told.append(one)
    if first is not None and not told:
        shutil.rmtree(part, ignore_errors=True)
        raise first
    summary = _summary(model, bundle, output, told, refused)
    for done in part.glob("*.done.json"):
        done.unlink()
    write_json(part / "summary.json", summary)
    if out.exists():
        shutil.rmtree(out)
    os.replace(part, out)
    return summary


def _output(bundle: Bundle) -> DetectionOutput:
    from contracts.problems.detection import DetectionOutput

    output = bundle.document.signature.output
    if not isinstance(output, DetectionOutput):
        raise PlatformError(
            f"{bundle.document.name} finds no objects in clips",
            detail=f"its answers are of problem {output.problem}, clips need detection",
            fix="name a model of detection, such as objects",
            code="bad_input",
        )
    return output


def _names(clips: Sequence[Path], root: Path) -> list[str]:
    """Names of files for the answers to clips, each once."""
    names: list[str] = []
    for clip in clips:
        inner = clip.relative_to(root) if clip.is_relative_to(root) and clip != root else Path(clip.name)
        name = "-".join(inner.parts)
        while name in names:
            name = f"_{name}"
        names.append(name)
    return names


def _one(
    bundle: Bundle,
    engine: Engine,
    output: DetectionOutput,
    clip: Path,
    name: str,
    part: Path,
    work: ClipWork,
    target: Path | None,
    report: Callable[..., None],
) -> dict[str, Any]:
    """Score one clip; what the summary says of it."""
    lines = part / f".{name}.jsonl.part"
    following = Following(output, work.video)
    happened, objects, empty = Counter[str](), Counter[str](), 0
    taken, still, last = 0, 0, (0.0, 0.0)
    sampler = Sampler(work.video)
    with Clip(clip) as source, lines.open("wb") as file:
        looked = _sampled(source, sampler)
        with _Drawing(target, source, work) as drawing:
            for frames in _grouped(ahead(looked, _AT_ONCE)):
                for (frame, waited), found in zip(frames, _found(bundle, engine, frames), strict=True):
                    if not taken:
                        check_places(work.video, source.width, source.height)
                    if waited is not None:
                        following.still(waited)
                    said = {"clip": name, "frame": frame.number, **following.frame(frame.time, found)}
                    file.write(json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
                    drawing.add(frame, said)
                    objects.update(one["label"] for one in said["objects"])
                    happened.update(one["event"] for one in said["events"])
                    empty += not said["objects"]
                    taken, last = taken + 1, (frame.time, last[0])
                report(
                    round(last[0], 2), round(source.seconds, 2) if source.seconds >= last[0] else None, frames=taken,
                )  # fmt: skip
        still = source.seen - taken
    os.replace(lines, part / f"{name}.jsonl")
    warnings = []
    if source.broken:
        where = f", ends at {last[0]:.1f} of {source.seconds:.1f} s" if source.cut and source.seconds else ""
        warnings.append(f"{name} is damaged{where}: {source.broken} pieces of it could not be decoded")
    return {
        "clip": name,
        "width": source.width,
        "height": source.height,
        "seconds": round(last[0], 3),
        "frames": source.seen,
        "looked_at": taken,
        "passed_over": still,
        "undecodable": source.broken,
        **{key: value for key, value in following.totals().items() if key != "frames"},
        "events": dict(sorted(happened.items())),
        "objects": {**{label: objects[label] for label in output.labels}, "(images without)": empty},
        "drawn": str(target) if target else "",
        "warnings": warnings,
    }


def _sampled(source: Clip, sampler: Sampler) -> Iterator[tuple[Frame, float | None]]:
    """Frames that are due and have changed; with each the time for which nothing had changed before it, if any."""
    before: float | None = None
    still: float | None = None
    for frame in source.frames(sampler.due):
        if sampler.changed(frame.image):
            yield frame, None if still is None or before is None else still - before
            before, still = frame.time, None
        else:
            still = frame.time


def _grouped(frames: Iterator[tuple[Frame, float | None]]) -> Iterator[list[tuple[Frame, float | None]]]:
    group: list[tuple[Frame, float | None]] = []
    for one in frames:
        group.append(one)
        most = max(1, min(_AT_ONCE, _PIXELS_AT_ONCE // (one[0].image.width * one[0].image.height)))
        if len(group) >= most:
            yield group
            group = []
    if group:
        yield group


def _found(bundle: Bundle, engine: Engine, frames: Sequence[tuple[Frame, float | None]]) -> Sequence[Detections]:
    """What the model finds. It gets files, as in training and serving; these cost no packing."""
    document = bundle.document
    files = np.empty(len(frames), object)
    for at, (frame, _) in enumerate(frames):
        buffer = io.BytesIO()
        frame.image.save(buffer, "BMP")
        files[at] = buffer.getvalue()
    answers: Sequence[Detections] = scoring.predict(engine, {document.signature.inputs[0].name: files}, document)
    return answers


class _Drawing:
    """The clip with its boxes, or nothing where no file is given."""

    def __init__(self, target: Path | None, source: Clip, work: ClipWork) -> None:
        self._work = work
        self._writer = ClipWriter(target, source.rate) if target else None

    def __enter__(self) -> _Drawing:
        if self._writer is not None:
            self._writer.__enter__()
        return self

    def __exit__(self, *about: Any) -> None:
        if self._writer is not None:
            self._writer.__exit__(*about)

    def add(self, frame: Frame, said: Mapping[str, Any]) -> None:
        if self._writer is None:
            return
        from pipelines.evaluation.box_pictures import drawn

        boxes = [
            (one["box"], f"{one['label']} {one['track'] or '?'}", _COLOURS[(one["track"] or 0) % len(_COLOURS)])
            for one in said["objects"]
        ]
        factor = max(1, -(-_LEAST_SIDE // min(frame.image.size)))
        large = frame.image.resize([side * factor for side in frame.image.size]) if factor > 1 else frame.image
        self._writer.add(_outlined(drawn(large, reversed(boxes), factor), self._work.video, factor), frame.time)


def _outlined(image: Any, video: VideoSettings, factor: int) -> Any:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(image)
    for points in (*video.zones.values(), *video.lines.values()):
        closed = [*points, points[0]] if len(points) > 2 else points
        pen.line([(x * factor, y * factor) for x, y in closed], fill="#f59e0b", width=max(1, factor))
    return image


def _summary(
    model: str,
    bundle: Bundle,
    output: DetectionOutput,
    told: Sequence[Mapping[str, Any]],
    refused: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    names = [*output.labels, "(images without)"]
    return {
        "model": model,
        "digest": bundle.digest,
        "rows": sum(one["looked_at"] for one in told),
        "problem": output.problem,
        "objects": {name: sum(one["objects"][name] for one in told) for name in names},
        "flags": {},
        "renamed": {},
        "clips": list(told),
        "refused": list(refused),
        "warnings": [
            *(text for one in told for text in one["warnings"]),
            *(f"not scored: {one['reason']}" for one in refused),
        ],
    }


def clips_of(source: str) -> list[Path]:
    """The clips of a source that has some, see `pipelines.data.clips.clips_in`."""
    place = Path(source).expanduser() if source else None
    return clips_in(place) if place is not None and place.exists() else []
