"""Objects are followed, zones and lines are watched, and frames are chosen and dropped by rule."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contracts.errors import PlatformError
from contracts.problems.detection import DetectionOutput, Detections
from contracts.settings import load
from contracts.video.events import Watch, within_polygon
from contracts.video.settings import TrackSettings, VideoSettings
from contracts.video.stream import Following, FrameQueue, Sampler, check_places
from contracts.video.tracker import Seen, Tracker, assign
from tests.moving_parts import Known, measures

OUTPUT = DetectionOutput(labels=("cup", "dog"), thresholds=(0.5, 0.5))
FPS = 25


def found(*rows: tuple[float, float, float, int]) -> Detections:
    """Boxes of 20x20 pixels around x and y, with score and class."""
    boxes = np.array([(x - 10, y - 10, x + 10, y + 10) for x, y, _, _ in rows], np.float64).reshape(-1, 4)
    return Detections(boxes, np.array([row[2] for row in rows]), np.array([row[3] for row in rows], np.int64))


def follow(frames: list[Detections], **said: Any) -> list[list[Seen]]:
    tracker = Tracker(OUTPUT, TrackSettings(**said))
    return [tracker.step(at / FPS, one) for at, one in enumerate(frames)]


def ids(frames: list[list[Seen]]) -> list[list[int | None]]:
    return [[one.track for one in seen] for seen in frames]


def test_two_objects_that_pass_each_other_keep_their_ids() -> None:
    frames = [found((20 + 4 * at, 50, 0.9, 0), (220 - 4 * at, 62, 0.8, 1)) for at in range(50)]
    said = follow(frames)
    assert all(one == [1, 2] for one in ids(said))
    assert {one.label for seen in said for one in seen if one.track == 1} == {"cup"}


def test_an_object_keeps_its_id_while_it_is_hidden_and_not_for_longer_than_patience() -> None:
    seen, hidden = [found((20 + 3 * at, 50, 0.9, 0)) for at in range(60)], found()
    short = [*seen[:20], *[hidden] * 15, *seen[35:60]]
    assert {one for frame in ids(follow(short, patience=1.0)) for one in frame} == {1}
    assert {one for frame in ids(follow(short, patience=0.4)) for one in frame if one} == {1, 2}


def test_an_unsure_detection_goes_on_with_an_object_and_begins_none() -> None:
    frames = [found((50, 50, 0.9, 0)), *[found((50, 50, 0.3, 0), (150, 50, 0.3, 0))] * 5]
    assert ids(follow(frames)) == [[1]] * 6
    assert ids(follow(frames, low=0.7)) == [[1], [], [], [], [], []]


def test_a_flash_gets_no_id_and_what_stays_gets_one() -> None:
    frames = [found(), found((50, 50, 0.9, 0)), found(), found((90, 90, 0.9, 0)), found((90, 90, 0.9, 0))]
    assert ids(follow(frames)) == [[], [None], [], [None], [1]]


def test_one_object_in_two_classes_is_one_and_has_the_class_of_most_frames() -> None:
    classes = [0, 0, 1, 0, 0]
    frames = [found((50, 50, 0.9, label), (51, 50, 0.6, 1 - label)) for label in classes]
    said = follow(frames)
    assert ids(said) == [[1]] * 5
    assert [seen[0].label for seen in said] == ["cup"] * 5
    assert len(follow(frames, same=1.0)[0]) == 2


def test_a_fast_object_is_found_again_although_its_boxes_do_not_touch() -> None:
    frames = [found((20 + 26 * at, 50, 0.9, 0)) for at in range(8)]
    assert {one for frame in ids(follow(frames)) for one in frame if one} == {1}


def test_times_may_be_irregular() -> None:
    times = np.cumsum([0.02, 0.2, 0.04, 0.4, 0.02, 0.1] * 5)
    tracker = Tracker(OUTPUT, TrackSettings())
    said = [tracker.step(float(time), found((20 + 60 * float(time), 50, 0.9, 0))) for time in times]
    assert {one.track for seen in said for one in seen} == {1}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200), st.floats(0, 1), st.integers(0, 1)),
                         max_size=6), max_size=12))  # fmt: skip
def test_whatever_is_found_no_id_stands_twice_in_a_frame_and_ids_count_up(rows: Any) -> None:
    tracker = Tracker(OUTPUT, TrackSettings())
    for at, some in enumerate(rows):
        seen = [one.track for one in tracker.step(at / FPS, found(*some)) if one.track]
        assert len(seen) == len(set(seen))
        assert all(0 < one <= tracker.count for one in seen)
        assert len(tracker.tracks) <= sum(map(len, rows))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_assignment_is_the_best_of_all(rows: int, columns: int, random: Any) -> None:
    near = np.array([[round(random.random(), 2) for _ in range(columns)] for _ in range(rows)])
    pairs = assign(near, 0.3)
    got = sum(near[pair] for pair in pairs)
    small, large = sorted((rows, columns))
    table = near if rows <= columns else near.T
    table = np.where(table >= 0.3, table, 0)
    best = max(
        sum(table[at, one] for at, one in enumerate(order)) for order in itertools.permutations(range(large), small)
    )
    assert got == pytest.approx(best)


def seen_at(x: float, y: float, track: int = 1) -> Seen:
    return Seen("cup", 0.9, (x - 2, y - 2, x + 2, y + 2), track)


def watch(**said: Any) -> Watch:
    return Watch(VideoSettings(**said))


SQUARE = [(10, 10), (20, 10), (20, 20), (10, 20)]


def test_an_object_enters_and_leaves_a_zone_once_although_it_trembles_at_its_border() -> None:
    seen = watch(zones={"box": SQUARE}, steady=2)
    places = [5, 9, 10.5, 9.5, 10.5, 11, 15, 19, 20.5, 19.5, 20.5, 25, 30]
    events = [event for x in places for event in seen.look([seen_at(x, 15)], [])]
    assert [one["event"] for one in events] == ["entered", "left"]
    assert seen.counts["box"] == {"entered": 1, "left": 1, "inside": 0}


def test_an_object_that_ends_within_a_zone_has_left_it() -> None:
    seen = watch(zones={"box": SQUARE}, steady=1)
    assert seen.look([seen_at(15, 15)], [])[0] == {"event": "entered", "zone": "box", "track": 1, "label": "cup"}
    assert seen.counts["box"]["inside"] == 1
    assert seen.look([], [1])[0]["event"] == "left"
    assert seen.counts["box"]["inside"] == 0
    assert seen.look([], [1]) == []


def test_lines_are_crossed_in_a_direction_and_only_where_they_are() -> None:
    seen = watch(lines={"gate": [(50, 0), (50, 40)]})  # downwards: its right side is the left of the image
    events = [one for x in (60, 55, 50.5, 45, 40) for one in seen.look([seen_at(x, 20)], [])]
    assert [(one["line"], one["direction"]) for one in events] == [("gate", "forward")]
    events = [one for x in (40, 60) for one in seen.look([seen_at(x, 20)], [])]
    assert [one["direction"] for one in events] == ["backward"]
    assert [one for x in (60, 40) for one in seen.look([seen_at(x, 80, 2)], [])] == []
    assert seen.counts["gate"] == {"forward": 1, "backward": 1}


def test_the_lower_edge_of_a_box_may_count() -> None:
    seen = watch(zones={"box": SQUARE}, steady=1, anchor="bottom")
    assert len(seen.look([seen_at(15, 9)], [])) == 1
    assert watch(zones={"box": SQUARE}, steady=1).look([seen_at(15, 9)], []) == []


def test_a_polygon_may_be_hollow() -> None:
    hollow = [(0, 0), (10, 0), (10, 10), (6, 10), (6, 4), (4, 4), (4, 10), (0, 10)]
    assert [within_polygon(point, hollow) for point in ((2, 8), (5, 8), (8, 8), (5, 2), (11, 2))] == [
        True, False, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ({"zones": {"a": [[0, 0], [1, 1]]}}, "zones.a"),
        ({"zones": {"a": [[0, 0], [1, 1], [0, 0]]}}, "zones"),
        ({"zones": {"a": [[0, 0], [1, float("nan")], [2, 0]]}}, "zones"),
        ({"lines": {"a": [[0, 0]]}}, "lines.a"),
        ({"zones": {"a": SQUARE}, "lines": {"a": SQUARE[:2]}}, "(all)"),
        ({"rate": -1}, "rate"),
        ({"track": {"patienc": 1}}, "track.patienc"),
    ],
)
def test_settings_name_the_key_that_is_wrong(said: Any, key: str) -> None:
    with pytest.raises(PlatformError) as caught:
        load(VideoSettings, environ={}, overrides=said)
    assert key in caught.value.headline


def test_a_zone_outside_of_all_frames_is_a_mistake() -> None:
    check_places(VideoSettings(zones={"a": SQUARE}), 15, 15)
    with pytest.raises(PlatformError, match="'a' lies outside the frames"):
        check_places(VideoSettings(zones={"a": SQUARE}), 9, 9)


def test_frames_are_sampled_on_a_grid_of_moments() -> None:
    sampler = Sampler(VideoSettings(rate=10))
    taken = [at for at in range(100) if sampler.due(at / FPS)]
    assert len(taken) == 40
    late = Sampler(VideoSettings(rate=1))
    assert [late.due(time) for time in (0, 0.5, 1, 7.3, 7.9, 8.3)] == [True, False, True, True, False, True]


def test_only_what_changes_is_looked_at() -> None:
    sampler = Sampler(VideoSettings(change=0.1))
    rng = np.random.default_rng(1)

    def frame(spot: int) -> Image.Image:
        pixels = rng.normal(120, 3, (240, 320, 3))
        pixels[spot : spot + 20, 100:120] = 220
        return Image.fromarray(pixels.astype(np.uint8))

    assert [sampler.changed(frame(spot)) for spot in (50, 50, 50, 80, 80, 50)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_time_in_which_nothing_changed_does_not_cost_an_object_its_id() -> None:
    following = Following(OUTPUT, VideoSettings())
    for at in range(5):
        following.frame(at / FPS, found((50, 50, 0.9, 0)))
    following.still(60.0)
    assert following.frame(4 / FPS + 60.04, found((50, 50, 0.9, 0)))["objects"][0]["track"] == 1
    assert following.totals()["tracks"] == {"cup": 1}


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.lists(st.booleans(), max_size=40))
def test_every_frame_is_taken_or_counted_as_dropped_and_never_more_wait(most: int, puts: list[bool]) -> None:
    waiting: FrameQueue[int] = FrameQueue(most)
    number, taken, missing = 0, [], 0
    for put in puts:
        if put:
            waiting.put(number)
            number += 1
        elif len(waiting):
            frame, dropped = waiting.take()
            missing += dropped
            taken.append(frame)
            assert frame == len(taken) - 1 + missing
        assert len(waiting) <= most
    left = []
    while len(waiting):
        frame, dropped = waiting.take()
        missing += dropped
        left.append(frame)
    assert taken + left == sorted(taken + left)
    assert len(taken) + len(left) + missing == number
    assert missing == waiting.dropped


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        # Of each object the number in each of ten frames (0: not found). By hand: DetA = TP / (TP + FN + FP); AssA is
        # the mean over TP of how many frames its object and track share, by how many have either; HOTA their root.
        ([[1] * 10, [2] * 10], (1, 1, 1)),  # perfect
        ([[1] * 5 + [2] * 5, [2] * 5 + [1] * 5], (1, 5 / 15, 10 / 20)),  # swapped after the half
        ([[1] * 6 + [0] * 4], (6 / 10, 6 / 10, 12 / 16)),  # lost after six
        ([[1] * 6 + [2] * 4], (1, (6 * 0.6 + 4 * 0.4) / 10, 12 / 20)),  # a new number after six
        ([[0] * 10], (0, 0, 0)),  # never found
    ],
    ids=["perfect", "swapped", "lost", "renamed", "missed"],
)
def test_measures_of_following_are_those_of_cases_by_hand(
    tracks: list[list[int]], expected: tuple[float, float, float]
) -> None:
    def seen(numbers: list[int]) -> list[Known]:
        return [Known(id, "nut", (at * 50.0, 0.0, at * 50.0 + 20, 20.0)) for at, id in enumerate(numbers) if id]

    frames = list(zip(*tracks, strict=True))
    deta, assa, idf1 = expected
    truth = [seen(list(range(1, len(tracks) + 1))) for _ in frames]
    said = measures(truth, [seen(list(numbers)) for numbers in frames])
    assert said == pytest.approx({"hota": (deta * assa) ** 0.5, "deta": deta, "assa": assa, "idf1": idf1})


def test_measures_of_following_ask_for_place_and_class() -> None:
    box, half = (0.0, 0.0, 20.0, 20.0), (0.0, 0.0, 10.0, 20.0)
    truth = [[Known(1, "nut", box)]] * 4
    # They overlap by a half: enough at 10 of HOTA's 19 limits, 0.05 to 0.95, and for IDF1.
    said = measures(truth, [[Known(7, "nut", half)]] * 4)
    assert said == pytest.approx(dict.fromkeys(("hota", "deta", "assa"), 10 / 19) | {"idf1": 1.0})
    assert set(measures(truth, [[Known(7, "bolt", box)]] * 4).values()) == {0.0}
    # A second object that is not there: 4 of 8 found are right.
    false = measures(truth, [[Known(7, "nut", box), Known(8, "nut", (50.0, 0.0, 70.0, 20.0))]] * 4)
    assert (false["deta"], false["assa"], false["idf1"]) == pytest.approx((0.5, 1.0, 8 / 12))
