"""Settings of video: which frames are looked at, how objects are followed, and where is watched."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from contracts.settings import Settings

Point = tuple[float, float]
Name = Annotated[str, Field(min_length=1, max_length=64)]


class TrackSettings(Settings):
    """How detections become tracks."""

    low: float = Field(
        0.4, gt=0, le=1, description="share of its class's threshold that the score of a known object may fall to"
    )
    overlap: float = Field(0.2, gt=0, lt=1, description="least overlap (IoU) with where an object is expected")
    same: float = Field(
        0.7, gt=0, le=1, description="boxes that overlap by more are one object, also of two classes; 1: never"
    )
    patience: float = Field(1.0, ge=0, le=3600, description="seconds for which an object that is not seen is kept")
    confirm: int = Field(2, ge=1, le=100, description="frames in a row that show an object before it gets its id")


class VideoSettings(Settings):
    """Points of zones and lines are x and y in pixels of the frame, from its upper left corner."""

    rate: float = Field(0, ge=0, le=1000, description="frames per second that are looked at, at most; 0: every one")
    change: float = Field(
        0,
        ge=0,
        lt=1,
        description="a frame is passed over unless the light of one of its 32x32 cells changed by this share; 0: never",
    )
    anchor: Literal["center", "bottom"] = Field("center", description="the point of a box that is in a zone or not")
    steady: int = Field(2, ge=1, le=100, description="frames in a row that say so before an object entered or left")
    zones: dict[Name, Annotated[list[Point], Field(min_length=3, max_length=100)]] = Field(
        {}, max_length=100, description="polygons: objects that enter and leave them are counted"
    )
    lines: dict[Name, tuple[Point, Point]] = Field(
        {}, max_length=100, description="objects that cross them are counted, by direction"
    )
    track: TrackSettings = Field(default_factory=lambda: TrackSettings.model_validate({}))

    @field_validator("zones", "lines")
    @classmethod
    def _real(cls, given: dict[str, list[Point]]) -> dict[str, list[Point]]:
        for name, points in given.items():
            if any(not abs(side) < 1e6 for point in points for side in point):
                raise ValueError(f"{name!r} has a point that is nowhere")
            if len({tuple(point) for point in points}) < len(points):
                raise ValueError(f"{name!r} has a point twice")
        return given

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if both := sorted(self.zones.keys() & self.lines.keys()):
            raise ValueError(f"{both[0]!r} is a zone and a line")
        return self
