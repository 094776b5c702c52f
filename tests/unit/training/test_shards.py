"""Images streamed from shards: the same sequence whatever makes it and wherever it begins, from a disk and from S3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from contracts.images import ImageSpec, read_pixels
from pipelines.training.pictures import AugmentConfig
from pipelines.training.shards import ClassReader, LoaderConfig, ShardLoader
from tests.image_bundle import picture
from tests.s3_folder import FolderClient

CLASSES = ["dark", "bright"]
SPEC = ImageSpec(width=8, height=8)
STILL = AugmentConfig(flip=False, crop=0.0)


def shards(folder: Path, counts: tuple[int, ...] = (23, 40, 18), group: int = 7) -> list[str]:
    """Shards of so many images; the shade of each is its number."""
    folder.mkdir(parents=True, exist_ok=True)
    places, number = [], 0
    for at, count in enumerate(counts):
        shades = list(range(number, number + count))
        number += count
        table = pa.table({
            "image": [picture(shade) for shade in shades],
            "label": [CLASSES[shade % 2] for shade in shades],
        })  # fmt: skip
        parquet.write_table(table, folder / f"part-{at}.parquet", row_group_size=group)
        places.append(str(folder / f"part-{at}.parquet"))
    return places


def loader(places: list[str], augment: AugmentConfig = STILL, **more: Any) -> ShardLoader:
    given = {"size": 10, "seed": 3, "config": LoaderConfig(window=20), **more}
    return ShardLoader(places, "image", ClassReader(SPEC, CLASSES, augment), **given)


def numbers(batches: Any) -> list[list[int]]:
    return [pixels[:, 0, 0, 0].tolist() for pixels, _ in batches]


def same(one: Any, other: Any) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(np.array_equal(a, b) for first, second in pairs for a, b in zip(first, second, strict=True))


def test_an_epoch_has_every_image_once_in_another_order_each_time(tmp_path: Path) -> None:
    made = loader(shards(tmp_path))
    first, second = numbers(made.epoch(0)), numbers(made.epoch(1))
    assert [len(batch) for batch in first] == [10] * 7 + [11], "no batch of a single row"
    assert len(first) == len(made)
    for one in (first, second):
        assert sorted(shade for batch in one for shade in batch) == list(range(81))
    assert first != second
    assert first == numbers(made.epoch(0))
    assert len({shade // 24 for shade in first[0] + first[1]}) > 1, "shards are mixed"
    for pixels, labels in made.epoch(0):
        assert (pixels[:, 0, 0, 0] % 2 == labels).all()


@pytest.mark.parametrize("start", range(9))
def test_an_epoch_goes_on_in_its_middle_with_the_same_images(tmp_path: Path, start: int) -> None:
    augment = AugmentConfig(crop=0.25, color=0.3, erase=0.5)
    made = loader(shards(tmp_path), augment)
    assert same(list(made.epoch(2, start)), list(made.epoch(2))[start:])


def test_workers_give_the_same_sequence_and_another_process_goes_on(tmp_path: Path) -> None:
    places, augment = shards(tmp_path), AugmentConfig(crop=0.25, color=0.3)
    whole = list(loader(places, augment).epoch(1))
    with loader(places, augment, config=LoaderConfig(window=20, workers=2)).running() as several:
        assert same(list(several.epoch(1)), whole)
        stopped = several.epoch(1)
        assert same([next(stopped) for _ in range(3)], whole[:3])
        assert same(list(several.epoch(1, 3)), whole[3:])


@pytest.mark.parametrize(("processes", "start"), [(2, 0), (3, 0), (3, 4)])
def test_processes_decode_their_share_and_have_together_what_one_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, start: int
) -> None:
    made = loader(shards(tmp_path), AugmentConfig(crop=0.25, color=0.3, erase=0.5))
    decoded: list[int] = []

    def counted(*arguments: Any) -> Any:
        decoded[-1] += 1
        return read_pixels(*arguments)

    monkeypatch.setattr("pipelines.training.shards.read_pixels", counted)

    def epoch(rank: int, several: int) -> list[Any]:
        decoded.append(0)
        return list(made.epoch(0, start, lambda epoch, batch, rows: np.arange(rank, rows, several)))

    whole, *shares = epoch(0, 1), *(epoch(rank, processes) for rank in range(processes))
    assert decoded[0] == sum(decoded[1:]) == 81 - 10 * start
    assert max(decoded[1:]) <= decoded[0] / processes + 8, "a row more of each batch at most"
    assert same(whole, list(made.epoch(0, start)))
    for (pixels, labels), *parts in zip(whole, *shares, strict=True):
        for rank, (some, known) in enumerate(parts):
            assert np.array_equal(some, pixels[rank::processes])
            assert np.array_equal(known, labels)


def test_only_what_is_asked_for_is_fetched_from_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = shards(tmp_path / "bucket" / "data")
    client = FolderClient(tmp_path)
    monkeypatch.setattr("contracts.storage._client", lambda: client)
    remote = loader([f"s3://bucket/data/part-{at}.parquet" for at in range(3)])
    assert same(list(remote.epoch(0)), list(loader(local).epoch(0)))


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1]), (2, [2]), (10, [10]), (11, [11]), (12, [10, 2]), (20, [10, 10])])
def test_the_last_batch_is_never_a_single_row(tmp_path: Path, rows: int, sizes: list[int]) -> None:
    made = loader(shards(tmp_path, (rows,)))
    assert [len(batch) for batch in numbers(made.epoch(0))] == sizes
    assert len(made) == len(sizes)
