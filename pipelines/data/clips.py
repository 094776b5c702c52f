"""Clips: their frames with their times, decoded by PyAV, and clips that are written.

Only what is common is opened, from the file alone: a playlist that names other files or addresses is refused.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from contracts.engine import MAX_PIXELS
from contracts.errors import PlatformError

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
ENDINGS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".ogv", ".flv", ".wmv",
    ".3gp",
)  # fmt: skip
WRITTEN = (".mp4", ".webm", ".mkv")
_CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf"
_CODECS = (
    "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,mpeg1video,mpeg2video,mpeg4,mjpeg,theora,wmv1,wmv2,wmv3,vc1,"
    "prores,dnxhd,rawvideo,ffv1,h263,flv,msmpeg4,msmpeg4v2"
)
_TICKS = 90_000  # of a second, in what is written


@dataclass(frozen=True, slots=True)
class Frame:
    """number: in the clip, from 0 on.  time: seconds.  image: as it is seen, RGB."""

    number: int
    time: float
    image: Image.Image


def is_clip(file: Path) -> bool:
    """Whether a file's name ends as those of clips."""
    return file.suffix.lower() in ENDINGS and not file.name.startswith(".")


def clips_in(source: Path) -> list[Path]:
    """The clip, or the clips of a folder and the folders in it, in the order of their names; none where there is none.

    Raises:
        PlatformError: ``code="bad_source"``: a folder has clips and other files, of which nobody says what they are.
    """
    if source.is_file():
        return [source] if is_clip(source) else []
    files = sorted(one for one in source.rglob("*") if one.is_file() and not one.name.startswith("."))
    clips = [one for one in files if is_clip(one)]
    others = [one for one in files if not is_clip(one)]
    if clips and others:
        raise PlatformError(
            f"{source} has clips and other files",
            detail=f"{clips[0].name} is a clip, {others[0].name} is none",
            fix="give clips and other files in folders of their own",
            code="bad_source",
        )
    return clips


class Clip:
    """A clip that is open; close it, or use it in ``with``.

    Attributes:
        width, height: pixels of a frame as it is seen, known once the first is decoded.
        seconds: as its header says, 0 where it says nothing.  rate: frames in a second, on average; 0 where unknown.
        seen: frames that were decoded so far.  broken: pieces that could not be.  cut: whether the file ends too early.

    Raises:
        PlatformError: ``code="bad_source"``: it is no clip that can be read, has no pictures, or too large ones;
            ``code="missing_library"``.
    """

    def __init__(self, file: Path, most_pixels: int = MAX_PIXELS) -> None:
        self._av, self._file, self._most = library(), file, most_pixels
        self.width = self.height = self.seen = self.broken = 0
        self.cut = False
        options = {
            "protocol_whitelist": "file",
            "format_whitelist": _CONTAINERS,
            "codec_whitelist": _CODECS,
            "max_pixels": str(most_pixels),
        }
        try:
            self._container = self._av.open(str(file), options=options)
        except (self._av.FFmpegError, ValueError, OSError) as err:
            raise self._bad(
                "is no clip that can be read",
                f"{_said(err)}; expected one of {', '.join(ENDINGS)}, whole and of a common format",
            ) from None
        try:
            self._stream = self._open()
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def _open(self) -> Any:
        if not self._container.streams.video:
            kinds = sorted({one.type for one in self._container.streams})
            raise self._bad("has no pictures", f"it has {', '.join(kinds) or 'nothing'}", "give a clip with a video")
        stream = self._container.streams.video[0]
        wide, high = stream.codec_context.width, stream.codec_context.height
        if not 0 < wide * high <= self._most:
            raise self._large(wide, high)
        if stream.codec_context.name not in _CODECS.split(","):
            raise self._bad(
                "has pictures of a format that is not read",
                f"{stream.codec_context.name or 'unknown'}; expected H.264, HEVC, VP8, VP9, AV1, MPEG or Motion JPEG",
                "convert it, for example to H.264",
            )
        stream.codec_context.options = {"max_pixels": str(self._most)}
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = 2
        self.rate = float(stream.average_rate or 0)
        length, base = stream.duration, stream.time_base
        self.seconds = float(length * base) if length and base else (self._container.duration or 0) / 1e6
        return stream

    def frames(self, due: Callable[[float], bool] = lambda time: True) -> Iterator[Frame]:
        """The frames for whose time `due` says so; the others cost their decoding and no more.

        Times begin at 0 and grow; a frame without a time gets one by the average rate.

        Raises:
            PlatformError: ``code="bad_source"``: no frame can be decoded, or one is too large or of another size.
        """
        first, last = None, -1.0
        step = 1 / self.rate if self.rate else 1 / 25
        for found in self._decoded():
            time = found.time
            if time is None:
                time = (first or 0.0) + last + step
            first = time if first is None else first
            time = max(float(time - first), last + 1e-6 if last >= 0 else 0.0)
            number, last = self.seen, time
            self.seen += 1
            turned = round(found.rotation / 90) % 4
            size = (found.height, found.width) if turned % 2 else (found.width, found.height)
            if found.width * found.height > self._most:
                raise self._large(*size)
            if self.seen == 1:
                self.width, self.height = size
            elif size != (self.width, self.height):
                raise self._bad(
                    "changes its size",
                    f"{self.width}x{self.height} pixels, from frame {number} on {size[0]}x{size[1]}",
                    "convert it to one size, or cut it there",
                )
            if due(time):
                yield Frame(number, time, _image(found, turned))
        if not self.seen:
            what = "no key frame, or is damaged" if self.broken else "no frame"
            raise self._bad("has no frame that can be decoded", f"it has {what}", "record it again, or leave it out")
        if self.seconds and self.rate and last + 2 * step + 0.5 < self.seconds and self.broken:
            self.cut = True

    def _decoded(self) -> Iterator[Any]:
        """Every frame from the first key frame on that is whole."""
        began = False
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self._av.FFmpegError:
                self.cut = True
                self.broken += 1
                packet = None
            if packet is not None and packet.size and not began and not packet.is_keyframe:
                self.broken += 1  # without a key frame before it, it says only what has changed
                continue
            began = True
            try:
                found = packet.decode() if packet is not None else self._stream.codec_context.decode(None)
            except self._av.FFmpegError:
                self.broken += 1
                found = []
            for one in found:
                if one.is_corrupt:
                    self.broken += 1
                else:
                    yield one
            if packet is None:
                return

    def _bad(self, what: str, detail: str, fix: str = "give another file, or convert it to MP4") -> PlatformError:
        return PlatformError(
            f"{self._file.name} {what}", detail=detail, fix=fix, code="bad_source", file=str(self._file)
        )

    def _large(self, wide: int, high: int) -> PlatformError:
        return self._bad(
            "has too large frames" if wide * high else "has frames of an unknown size, or too large ones",
            (f"{wide}x{high} pixels, a" if wide * high else "a") + f"t most {self._most:,} in all are accepted",
            "convert it to a smaller size",
        )


def _image(frame: Any, turned: int) -> Image.Image:
    from PIL import Image

    image: Image.Image = frame.to_image()
    ways = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
    return image.transpose(ways[turned]) if turned else image


class ClipWriter:
    """Writes a clip as VP9, which appears at `file` when the block ends well."""

    def __init__(self, file: Path, rate: float = 25) -> None:
        self._av, self._file = library(), file
        self._part = file.with_name(f".{file.stem}-{os.getpid()}{file.suffix}")
        self._rate, self._last = Fraction(rate or 25).limit_denominator(1001), -1
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._container is not None:
                if kind is None:
                    self._container.mux(self._stream.encode(None))
                self._container.close()
            if kind is None and self._container is not None:
                os.replace(self._part, self._file)
        finally:
            self._part.unlink(missing_ok=True)

    def add(self, image: Image.Image, time: float) -> None:
        """One frame, shown from `time` on, in seconds."""
        if self._container is None:
            self._begin(image.width, image.height)
        frame = self._av.VideoFrame.from_image(image)
        self._last = max(round(time * _TICKS), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def _begin(self, wide: int, high: int) -> None:
        if not self._file.parent.is_dir():
            raise PlatformError(
                f"cannot write {self._file}", detail="its folder is not there", fix="make it", code="bad_input"
            )
        self._container = self._av.open(str(self._part), "w")
        # Free of patents and of the GPL, unlike the encoders of H.264; browsers and players show it.
        speed = {"deadline": "realtime", "cpu-used": "8", "row-mt": "1", "crf": "32", "b": "0"}
        self._stream = self._container.add_stream("libvpx-vp9", rate=self._rate, options=speed)
        self._stream.width, self._stream.height, self._stream.pix_fmt = wide, high, "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        self._stream.codec_context.thread_count = 2


def ahead(items: Iterator[T], most: int) -> Iterator[T]:
    """The same, made by a thread that is at most so many items ahead; its failure is raised here, in its place."""
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(most)
    over = threading.Event()

    def put(item: T | None, err: BaseException | None = None) -> bool:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put((item, err), timeout=0.1)
                return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as err:  # noqa: BLE001 - raised by the reader
            put(None, err)
        else:
            put(None, StopIteration())

    thread = threading.Thread(target=make, name="decode", daemon=True)
    thread.start()
    try:
        while True:
            item, err = waiting.get()
            if isinstance(err, StopIteration):
                return
            if err is not None:
                raise err
            yield item  # type: ignore[misc]
    finally:
        over.set()
        thread.join()


def library() -> Any:
    """PyAV.

    Raises:
        PlatformError: ``code="missing_library"``.
    """
    try:
        import av
        import av.error
        import av.logging
    except ImportError:
        raise PlatformError(
            "clips need PyAV", detail="it is not installed", fix="pip install 'fairlead[video]'", code="missing_library"
        ) from None
    av.logging.set_level(None)
    return av


def _said(err: BaseException) -> str:
    return str(getattr(err, "strerror", "") or err).rstrip(".")
