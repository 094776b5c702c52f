"""Progress of a run where the caller is: in a notebook one picture that changes, elsewhere as on the command line."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Show = Callable[[dict[str, Any]], None]
_LOOK = 0.3  # seconds between two pictures of the same step


def in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this; a terminal of IPython is none."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def progress_shown(wanted: bool) -> Iterator[Show]:
    """What takes the events of a run and shows them, or does nothing where it is not wanted."""
    if not wanted:
        yield lambda event: None
    elif in_notebook():
        picture = _Picture()
        yield picture.show
        picture.draw()
    else:
        from deploy.cli.runs.progress import RunProgress
        from deploy.cli.terminal.output import console

        with RunProgress(console()) as progress:
            yield progress.show


class _Picture:
    """The bars of the command line as one output of a cell."""

    def __init__(self) -> None:
        from IPython.display import display
        from rich.console import Console

        from deploy.cli.runs.progress import RunProgress

        self._progress = RunProgress(Console(file=io.StringIO(), width=100, force_jupyter=False))
        self._drawn = 0.0
        self._output = display(self, display_id=True)  # type: ignore[no-untyped-call]

    def show(self, event: dict[str, Any]) -> None:
        self._progress.show(event)
        if event["event"] != "progress" or time.monotonic() - self._drawn > _LOOK:
            self.draw()

    def draw(self) -> None:
        self._drawn = time.monotonic()
        self._output.update(self)

    def _printed(self) -> Any:
        from rich.console import Console

        out = Console(file=io.StringIO(), width=100, record=True, force_jupyter=False)
        out.print(self._progress.picture())
        return out

    def __repr__(self) -> str:
        return str(self._printed().export_text()).rstrip()

    def _repr_html_(self) -> str:
        form = '<pre style="line-height:normal">{code}</pre>'
        return str(self._printed().export_html(inline_styles=True, code_format=form))
