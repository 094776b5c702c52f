"""``fairlead features stream``: rows of topics into the store, with what has been done so far."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from contracts.settings import load
from deploy.cli.terminal.output import console, emit

if TYPE_CHECKING:
    from feature_repo.stream.exposition import Figures


def follow_topics(file: str, as_json: bool = False) -> None:
    """Push until Ctrl-C or SIGTERM, then say how much.

    Raises:
        PlatformError: the settings, the brokers, the store or a message; see `feature_repo.stream.consumer.Stream.run`.
    """
    from feature_repo.stream.__main__ import follow
    from feature_repo.stream.exposition import Figures
    from feature_repo.stream.settings import PREFIX, StreamSettings

    settings = load(StreamSettings, file, prefix=PREFIX)
    stop, figures = threading.Event(), Figures()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {sign: signal.signal(sign, end) for sign in (signal.SIGINT, signal.SIGTERM)}
    topics = ", ".join(f"{one.topic} → {one.source}" for one in settings.topics)
    try:
        with console(stderr=as_json).status(f"{topics}: waiting for rows; Ctrl-C ends it") as status:
            told = threading.Thread(
                target=_tell, args=(stop, figures, lambda text: status.update(f"{topics}: {text}")), daemon=True
            )
            told.start()
            follow(settings, stop, figures)
    finally:
        stop.set()
        for sign, handler in before.items():
            signal.signal(sign, handler)
    pushed, refused, behind = figures.totals()
    counts = {"topics": [one.topic for one in settings.topics], "pushed": pushed, "refused": refused, "behind": behind}
    emit(counts, as_json, lambda out: out.print(f"{topics}: {_done(figures)}"))


def _tell(stop: threading.Event, figures: Figures, say: Callable[[str], None]) -> None:
    while not stop.wait(0.5):
        say(_done(figures))


def _done(figures: Figures) -> str:
    pushed, refused, behind = figures.totals()
    return f"{pushed:,} rows pushed, {refused:,} refused, {behind:,} behind"
