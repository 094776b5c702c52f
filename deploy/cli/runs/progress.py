"""Progress of a run: a live line per step in a terminal, one line per finished step elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from deploy.cli.runs.graph import line
from deploy.cli.terminal.advice import resume_command
from deploy.cli.terminal.output import EXIT_INTERRUPTED, console, number, seconds, write_json
from pipelines.data.left_out import in_words

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import ProgressColumn

    from pipelines.run import Run

_MARKS = {
    "waiting": "[yellow] .[/]",
    "running": "[cyan] >[/]",
    "done": "[green]ok[/]",
    "cached": "[blue] =[/]",
    "failed": "[bold red] x[/]",
}
_PLAIN = {"done": "ok", "cached": "=", "failed": "x"}
_NOTES = {"done": "", "cached": "unchanged, from the cache", "failed": "failed"}
_STATES = {"step_finished": "done", "step_cached": "cached", "step_failed": "failed"}
_LONGEST = 40  # characters of a step's note


@contextmanager
def stoppable(run: Run, as_json: bool) -> Iterator[None]:
    """Ctrl-C ends what is done here with its exit code, and says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        again = resume_command(run.run_id, run.profile)
        if as_json:
            write_json({"run_id": run.run_id, "status": "stopped", "resume": again})
        console(stderr=True).print(f"\nStopped. Go on where it was: {again}", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def show_steps(out: Console, run: Run) -> None:
    """The graph of a run that is about to start."""
    from pipelines.steps.calls import steps_of
    from pipelines.tasks import get_task

    out.print(line(steps_of(get_task(run.task), run.workflow)), markup=False, soft_wrap=True, style="dim")


def show_changes(out: Console, changed: Mapping[str, Any]) -> None:
    """Settings that an attempt has and the one before had not."""
    for key, value in changed.items():
        out.print(f"Changed  {key} is {json.dumps(value, ensure_ascii=False)} now", markup=False, soft_wrap=True)


class RunProgress:
    """Show the events of one run; use as a context manager around the loop over events."""

    def __init__(self, out: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._out = out
        self._live = out.is_terminal
        self._bars = Progress(
            TextColumn("{task.fields[mark]}"),
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=20),
            _seconds_column(),
            TextColumn("[dim]{task.fields[note]}"),
            console=out,
            auto_refresh=self._live,
            disable=not self._live,
        )
        self._bar: dict[str, Any] = {}
        self._began: dict[str, float] = {}

    def __enter__(self) -> RunProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def picture(self) -> RenderableType:
        """The bars as they are now, for whoever has no terminal to draw them in."""
        return self._bars.get_renderable()

    def show(self, event: dict[str, Any]) -> None:
        """Show one event; kinds that are no news about a step are ignored."""
        kind, step = event["event"], str(event.get("step") or "")
        if kind == "step_started":
            again = step in self._bar
            self._start(step)
            if again and event.get("attempt", 1) > 1:
                self._say(step, f"try {event['attempt']}")
        elif kind == "step_waiting":
            self._wait(step, str(event["reason"]), starting=event.get("kind") == "starting")
        elif kind == "step_retry":
            self._say(step, _retry(event))
        elif kind == "note":
            self._out.print(f"         {event['message']}", markup=False, soft_wrap=True)
        elif kind in ("cluster_silent", "cluster_back"):
            self._out.print(_cluster(event), markup=False, soft_wrap=True)
        elif kind == "progress" and step:
            self._advance(step, event)
        elif kind in _STATES:
            self._finish(step, _STATES[kind], event)

    def _start(self, step: str) -> None:
        self._began[step] = time.monotonic()
        if step not in self._bar:
            self._bar[step] = self._bars.add_task(step, total=None, mark=_MARKS["running"], taken=None, note="")
        else:  # it waited: its time begins now
            self._bars.reset(self._bar[step], total=None, mark=_MARKS["running"], taken=None, note="")

    def _wait(self, step: str, reason: str, starting: bool) -> None:
        """What a step waits for: in a terminal beside it; elsewhere a line, unless it is no news."""
        self._start(step)
        self._bars.update(self._bar[step], mark=_MARKS["waiting"], note=reason)
        if not self._live and not starting:
            self._out.print(f"   {step:<14} {reason}", markup=False, soft_wrap=True)

    def _say(self, step: str, note: str) -> None:
        self._start(step)
        self._bars.update(self._bar[step], note=note)
        if not self._live:
            self._out.print(f"   {step:<14} {note}", markup=False, soft_wrap=True)

    def _advance(self, step: str, event: dict[str, Any]) -> None:
        if step not in self._bar:
            self._start(step)
        done, total = event.get("done") or 0, event.get("total")
        self._bars.update(self._bar[step], completed=done, total=total, note=_note(event))

    def _finish(self, step: str, state: str, event: dict[str, Any]) -> None:
        if step not in self._bar:
            self._start(step)
        taken = event.get("seconds")
        taken = time.monotonic() - self._began[step] if taken is None else float(taken)
        full: dict[str, Any] = {} if state == "failed" else {"total": 1, "completed": 1}
        said = left_out_by(event.get("result"), step) if state == "done" else []
        note = said[0].partition(":")[0] if said else _NOTES[state]
        self._bars.update(self._bar[step], mark=_MARKS[state], taken=taken, note=note, **full)
        if not self._live:
            line = f"{_PLAIN[state]:>2} {step:<14} {seconds(taken):>12}  {'; '.join(said) or _NOTES[state]}"
            self._out.print(line.rstrip(), markup=False, soft_wrap=True)


def left_out_by(result: Any, step: str = "") -> list[str]:
    """Lines about the rows that a step, or all steps up to it, left out, from the result of a step."""
    found = result.get("left_out") if isinstance(result, dict) else None
    return in_words(found, step) if found else []


def _seconds_column() -> ProgressColumn:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Seconds(ProgressColumn):
        """Seconds so far, or what the finished step reported."""

        def render(self, task: Task) -> Text:
            taken = task.fields["taken"]
            return Text(f"{seconds(task.elapsed if taken is None else taken):>12}")

    return Seconds()


def _note(event: dict[str, Any]) -> str:
    """What a progress event says, as far as it fits: 300k/1.0M, then its metrics."""
    known = {"event", "step", "done", "total", "time", "run", "run_id", "task", "message"}
    parts = [f"{key} {number(value, 3)}" for key, value in event.items() if key not in known and _scalar(value)]
    if event.get("total"):
        parts.insert(0, f"{_count(event.get('done') or 0)}/{_count(event['total'])}")
    note = ""
    for part in parts:
        if len(note) + len(part) + 2 > _LONGEST:
            break
        note += f"  {part}" if note else part
    return note


def _retry(event: dict[str, Any]) -> str:
    """That a step tries again, why and when."""
    error = event.get("error")
    said = error.get("headline") if isinstance(error, dict) else error
    return f"try {event.get('attempt')} failed, the next in {event.get('wait')} s: {said}"


def _cluster(event: dict[str, Any]) -> str:
    """That a cluster does not answer, or does again."""
    if event["event"] == "cluster_back":
        return f"The cluster answers again, after {seconds(event['seconds'])}."
    return f"The cluster does not answer, trying again (since {event['since']}): {event['message']}"


def _scalar(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _count(value: float) -> str:
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value / 1e3:.0f}k" if value >= 1e4 else f"{value:.0f}"
