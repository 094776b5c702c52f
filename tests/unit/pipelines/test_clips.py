"""Clips: frames with their times, what is refused and why, and what is written of a batch of them."""

from __future__ import annotations

import io
import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.video.settings import VideoSettings
from pipelines.data.clips import Clip, ClipWriter, Frame, ahead, clips_in
from pipelines.steps import batch_clips
from pipelines.steps.batch_clips import ClipWork, parted, score_clips
from tests.detection_bundle import spots
from tests.moving_parts import write_clip

av = pytest.importorskip("av", reason="the extra video is not installed: no PyAV")


def plain(light: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, (light, light, light))


def clip(
    file: Path, lights: list[int], times: list[float] | None = None, codec: str = "libvpx-vp9", **said: Any
) -> Path:
    return write_clip(
        file, [plain(one, **said) for one in lights], times or [at / 25 for at in range(len(lights))], codec
    )


def read(file: Path, **said: Any) -> tuple[Clip, list[Frame]]:
    with Clip(file, **said) as source:
        return source, list(source.frames())


def reason(file: Path, **said: Any) -> str:
    with pytest.raises(PlatformError) as caught:
        read(file, **said)
    assert caught.value.code == "bad_source"
    return f"{caught.value.headline}: {caught.value.detail}"


def tone(file: Path, picture: bool = False) -> Path:
    """A second of sound."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac" if file.suffix == ".mp4" else "libopus", rate=48_000)
        for at in range(40):
            sound = np.zeros((1, 1024 if file.suffix == ".mp4" else 960), np.float32)
            frame = av.AudioFrame.from_ndarray(sound, "fltp", "mono") if file.suffix == ".mp4" else None
            frame = frame or av.AudioFrame.from_ndarray(sound.astype(np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, at * sound.shape[1], Fraction(1, 48_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


def test_frames_come_with_their_numbers_and_times(tmp_path: Path) -> None:
    source, frames = read(clip(tmp_path / "a.mp4", [20, 120, 220]))
    assert [one.number for one in frames] == [0, 1, 2]
    assert [one.time for one in frames] == pytest.approx([0, 0.04, 0.08], abs=1e-3)
    assert [round(float(np.asarray(one.image).mean()), -1) for one in frames] == [20, 120, 220]
    assert (source.width, source.height, source.seen, source.broken) == (64, 48, 3, 0)


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0.0, 0.02, 0.5, 0.51, 3.0]
    _, frames = read(clip(tmp_path / "a.mkv", [10, 60, 110, 160, 210], times))
    assert [one.time for one in frames] == pytest.approx(times, abs=2e-3)


@pytest.mark.parametrize("size", [(63, 47), (1, 1), (2, 99)])
def test_odd_sizes_are_read_and_written(tmp_path: Path, size: tuple[int, int]) -> None:
    with ClipWriter(tmp_path / "a.webm", 25) as writer:
        for at in range(3):
            writer.add(plain(100, size), at / 25)
    source, frames = read(tmp_path / "a.webm")
    assert (source.width, source.height, len(frames)) == (*size, 3)
    assert frames[0].image.size == size


def test_a_clip_that_is_cut_off_gives_the_frames_that_it_has(tmp_path: Path) -> None:
    whole = clip(tmp_path / "a.mkv", [int(one) for one in np.linspace(10, 240, 50)])
    file = tmp_path / "cut.mkv"
    file.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    source, frames = read(file)
    assert 5 < len(frames) < 50
    assert source.seconds == 0 or frames[-1].time < source.seconds
    mp4 = clip(tmp_path / "b.mp4", [10, 20, 30])
    (tmp_path / "b-cut.mp4").write_bytes(mp4.read_bytes()[:-200])  # its index was at the end
    assert "is no clip that can be read" in reason(tmp_path / "b-cut.mp4")


def test_damage_within_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images = [Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)) for _ in range(30)]
    data = bytearray(write_clip(tmp_path / "a.avi", images, [at / 30 for at in range(30)], "mpeg4").read_bytes())
    at = len(data) // 2
    data[at : at + 3000] = bytes(3000)
    (tmp_path / "b.avi").write_bytes(data)
    source, frames = read(tmp_path / "b.avi")
    assert source.broken > 0
    assert 5 < len(frames) < 30


def test_without_a_key_frame_nothing_can_be_decoded(tmp_path: Path) -> None:
    whole = clip(tmp_path / "a.mkv", list(range(20, 200, 10)))
    with av.open(str(whole)) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        made = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size and not packet.is_keyframe:
                packet.stream = made
                target.mux(packet)
    assert "has no frame that can be decoded: it has no key frame" in reason(tmp_path / "b.mkv")


def test_a_clip_without_frames_or_pictures_says_what_it_has(tmp_path: Path) -> None:
    for name in ("none.mkv", "none.mp4"):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("libvpx-vp9", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            container.start_encoding()
    assert "none.mkv is no clip that can be read: End of file" in reason(tmp_path / "none.mkv")
    assert "none.mp4 has no pictures: it has nothing" in reason(tmp_path / "none.mp4")
    assert "has no pictures: it has audio" in reason(tone(tmp_path / "sound.mp4"))
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "empty.mp4 is no clip that can be read" in reason(tmp_path / "empty.mp4")


def test_a_hundred_megapixels_are_refused_before_one_is_decoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(buffer, "JPEG", quality=10)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 10_000, 10_000, "yuvj420p"
        packet = av.Packet(buffer.getvalue())
        packet.stream, packet.pts, packet.dts = stream, 0, 0
        container.mux(packet)
    assert "too large ones" in reason(tmp_path / "a.avi")
    small = clip(tmp_path / "b.mp4", [10])
    assert "too large ones: at most 3,071 in all" in reason(small, most_pixels=64 * 48 - 1)
    assert read(small, most_pixels=64 * 48)[1]


def test_a_playlist_and_an_image_under_the_name_of_a_clip_are_refused(tmp_path: Path) -> None:
    whole = clip(tmp_path / "a.ts", [10, 20, 30], codec="mpeg4")
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{whole}\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{whole}'\n")
    plain(100).save(tmp_path / "image.mp4", "JPEG")
    for name in ("list", "concat", "image"):
        assert "is no clip that can be read" in reason(tmp_path / f"{name}.mp4")


def test_a_clip_that_was_turned_is_seen_upright(tmp_path: Path) -> None:
    image = plain(30)
    image.paste((230, 230, 230), (0, 0, 64, 12))
    file = write_clip(tmp_path / "a.mp4", [image] * 3, [0, 0.04, 0.08])
    data = bytearray(file.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the matrix of the track: turned by 90 degrees
    assert struct.unpack(">9i", data[at : at + 36])[0] == 65_536
    data[at : at + 36] = struct.pack(">9i", 0, 65_536, 0, -65_536, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "b.mp4").write_bytes(data)
    source, frames = read(tmp_path / "b.mp4")
    assert (source.width, source.height) == (48, 64)
    right = np.asarray(frames[0].image)[:, -10:].mean()
    assert right > 180 > np.asarray(frames[0].image)[:, :20].mean()


def test_a_clip_that_changes_its_size_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.mkv"
    parts = [clip(tmp_path / f"{wide}.mkv", [10, 20], size=(wide, 48)) for wide in (64, 96)]
    with av.open(str(file), "w") as target:
        made, at = None, 0
        for part in parts:
            with av.open(str(part)) as source:
                made = made or target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream, packet.pts, packet.dts, at = made, at * 40, at * 40, at + 1
                        target.mux(packet)
    assert "changes its size: 64x48 pixels, from frame 2 on 96x48" in reason(file)


def test_what_is_written_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"

    def stop() -> None:
        with ClipWriter(file) as writer:
            writer.add(plain(1), 0)
            raise KeyError

    with pytest.raises(KeyError):
        stop()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PlatformError, match="cannot write"), ClipWriter(tmp_path / "no" / "a.mp4") as writer:
        writer.add(plain(1), 0)


def test_a_thread_ahead_gives_the_same_and_its_failure() -> None:
    assert list(ahead(iter(range(100)), 3)) == list(range(100))

    def breaks() -> Any:
        yield 1
        raise ValueError("broken")

    found = ahead(breaks(), 3)
    assert next(found) == 1
    with pytest.raises(ValueError, match="broken"):
        next(found)
    endless = ahead(iter(int, 1), 3)
    next(endless)
    endless.close()  # type: ignore[attr-defined]


@pytest.fixture
def bundle(tmp_path: Path) -> Any:
    return spots(tmp_path / "bundle")


def scored(bundle: Any, source: Path, out: Path, **said: Any) -> dict[str, Any]:
    work = ClipWork(video=VideoSettings.model_validate(said.pop("video", {})), **said)
    engine = load_engine(bundle, threads=1)
    return score_clips("spots", bundle, engine, clips_in(source), source, out, work)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_clip_becomes_lines_events_and_a_drawn_clip(tmp_path: Path, bundle: Any) -> None:
    source = clip(tmp_path / "a.mp4", [250] * 5 + [10] * 35, size=(48, 48))
    zone = {"middle": [[10, 10], [40, 10], [40, 40], [10, 40]]}
    summary = scored(bundle, source, tmp_path / "out", draw=str(tmp_path / "drawn.webm"), video={"zones": zone})
    said = lines(tmp_path / "out" / "a.mp4.jsonl")
    assert [one["frame"] for one in said] == list(range(40))
    spot = [one for one in said[4]["objects"] if one["label"] == "spot"]
    assert (spot[0]["track"], spot[0]["box"]) == (1, [12, 12, 36, 36])
    assert said[1]["events"] == [{"event": "entered", "zone": "middle", "track": 1, "label": "spot"}]
    (one,) = summary["clips"]
    assert one["tracks"]["spot"] == 1
    assert one["counts"] == {"middle": {"entered": 1, "left": 1, "inside": 0}}
    assert (one["frames"], one["looked_at"], summary["rows"]) == (40, 40, 40)
    assert summary["objects"]["(images without)"] == 35
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    drawn, frames = read(tmp_path / "drawn.webm")
    assert min(drawn.width, drawn.height) >= 360
    assert len(frames) == 40
    assert np.asarray(frames[4].image.convert("HSV"))[..., 1].max() > 60  # a coloured box on gray


def test_frames_are_passed_over_by_rate_and_by_change(tmp_path: Path, bundle: Any) -> None:
    source = clip(tmp_path / "a.mp4", [250] * 25 + [10] * 25)
    (one,) = scored(bundle, source, tmp_path / "rate", video={"rate": 5})["clips"]
    assert (one["frames"], one["looked_at"], one["passed_over"]) == (50, 10, 40)
    (one,) = scored(bundle, source, tmp_path / "change", video={"change": 0.2})["clips"]
    assert one["looked_at"] == 2
    assert [said["frame"] for said in lines(tmp_path / "change" / "a.mp4.jsonl")] == [0, 25]


def test_a_folder_goes_on_where_it_was_stopped_and_names_what_it_could_not_read(
    tmp_path: Path, bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clips"
    (folder / "b").mkdir(parents=True)
    for name in ("a.mp4", "b/a.mp4", "c.mp4"):
        clip(folder / name, [250, 250])
    (folder / "bad.mp4").write_bytes(b"no clip")
    real, looked = batch_clips._one, []

    def one(*given: Any) -> Any:
        looked.append(given[4])
        if given[4] == "c.mp4" and len(looked) < 5:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(batch_clips, "_one", one)
    with pytest.raises(KeyboardInterrupt):
        scored(bundle, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    summary = scored(bundle, folder, tmp_path / "out")
    assert looked == ["a.mp4", "b-a.mp4", "bad.mp4", "c.mp4", "bad.mp4", "c.mp4"]
    assert [item["clip"] for item in summary["clips"]] == ["a.mp4", "b-a.mp4", "c.mp4"]
    assert summary["refused"][0]["clip"] == "bad.mp4"
    assert "not scored: bad.mp4 is no clip" in summary["warnings"][0]
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"a.mp4.jsonl", "b-a.mp4.jsonl", "c.mp4.jsonl", "summary.json"}
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_clips_and_other_files_are_not_mixed(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", [1])
    (tmp_path / "b.csv").write_text("x\n")
    with pytest.raises(PlatformError, match="has clips and other files"):
        clips_in(tmp_path)


def test_settings_of_clips_are_told_from_others_and_checked() -> None:
    rest, work = parted({"data.header": True, "video.rate": 5, "video.draw": "out.mp4", "video.track.patience": 2})
    assert rest == {"data.header": True}
    assert work is not None
    assert (work.video.rate, work.video.track.patience, work.draw) == (5, 2, "out.mp4")
    assert [str(work.drawn(number)) for number in (1, 2)] == ["out.mp4", "out-2.mp4"]
    assert parted({"data.header": True}) == ({"data.header": True}, None)
    with pytest.raises(PlatformError, match=r"video\.rat"):
        parted({"video.rat": 5})
    with pytest.raises(PlatformError, match=r"no clip can be written to out\.gif"):
        parted({"video.draw": "out.gif"})
