"""How results look: as text in a console, as HTML without scripts in a notebook, as a data frame for more."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    import pandas as pd

Item = TypeVar("Item")
Row = Mapping[str, Any]

_GOOD, _BAD, _PLAIN = "#1a7f37", "#c62828", "#4a6fa5"
_COLOURS = {
    "succeeded": _GOOD,
    "passed": _GOOD,
    "ok": _GOOD,
    "refused": _BAD,
    "failed": _BAD,
    "changed": _BAD,
    "running": _PLAIN,
}
_WIDE = 160.0  # of a bar's half, in pixels


class Html(str):
    """Text that is HTML already: everything else in a table is escaped."""

    __slots__ = ()


class Listing(Sequence[Item], Generic[Item]):
    """Results in order, each a row of a table.

    Args:
        items: the results.
        cells: what a row shows of one: column -> value.
        empty: lines that are shown where there are none.
        title: a line above the table.
    """

    def __init__(
        self, items: Iterable[Item], cells: Callable[[Item], Row], empty: Sequence[str] = (), title: str = ""
    ) -> None:
        self._items, self._cells, self._empty, self._title = list(items), cells, list(empty), title

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Listing[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Listing[Item]:
        if isinstance(index, slice):
            return Listing(self._items[index], self._cells, self._empty, self._title)
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def rows(self) -> list[Row]:
        """What the table shows, as values."""
        return [self._cells(item) for item in self._items]

    def frame(self) -> pd.DataFrame:
        """The rows as a data frame of pandas."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def __repr__(self) -> str:
        return "\n".join(filter(None, [self._title, text_table(self.rows())])) if self else self._nothing()

    def _repr_html_(self) -> str:
        if not self:
            return f"<p>{escape(self._nothing())}</p>"
        return heading(self._title) + html_table(self.rows())

    def _nothing(self) -> str:
        return "\n".join(self._empty) or "nothing"


class Page:
    """A page of a bundle, such as its card, shown in a frame of its own that runs no scripts.

    Attributes:
        path: its file.
    """

    def __init__(self, path: Path, height: int = 640) -> None:
        self.path, self._height = path, height

    def __repr__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        page = escape(self.path.read_text(encoding="utf-8"), quote=True)
        style = f"width:100%;height:{self._height}px;border:1px solid #ccc"
        return f'<iframe sandbox srcdoc="{page}" style="{style}"></iframe>'


class Plots(Mapping[str, Path]):
    """Pictures by name."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files = {file.stem: file for file in files}

    def __getitem__(self, name: str) -> Path:
        return self._files[name]

    def __iter__(self) -> Any:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        return f"Plots({', '.join(self._files) or 'none'})"

    def _repr_html_(self) -> str:
        shown = (
            f'<figure style="display:inline-block;margin:4px"><img alt="{escape(name)}" style="max-width:420px" '
            f'src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"></figure>'
            for name, file in self._files.items()
        )
        return "".join(shown) or "<p>no plots</p>"


def heading(text: str) -> str:
    """A line above a table; nothing for an empty one."""
    return f"<p><b>{escape(text)}</b></p>" if text else ""


def html_table(rows: Sequence[Row]) -> str:
    """Rows as an HTML table; numbers to the right, verdicts in their colours."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in names)
    body = "".join("<tr>" + "".join(_cell(row.get(name)) for name in names) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    style = f"text-align:{'right' if numeric else 'left'}"
    if isinstance(value, str) and value in _COLOURS:
        style += f";color:{_COLOURS[value]};font-weight:bold"
    return f'<td style="{style}">{value if isinstance(value, Html) else escape(words(value))}</td>'


def text_table(rows: Sequence[Row]) -> str:
    """Rows as lines of text; pictures are left out."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if not _pictures(name, rows)]
    lines = [names, *([words(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _pictures(name: str, rows: Sequence[Row]) -> bool:
    return any(isinstance(row.get(name), Html) for row in rows)


def words(value: Any) -> str:
    """A value as a table shows it; a dash where there is none."""
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value)) or "-"
    return str(value)


def bar(value: float | None, most: float) -> Html:
    """A bar from a middle line to the right, or to the left for a negative value; `most` is as wide as it gets."""
    if value is None or not most:
        return Html("")
    length = _WIDE / 2 * min(1.0, abs(value) / most)
    left = _WIDE / 2 - (length if value < 0 else 0)
    return Html(
        f'<svg width="{_WIDE:.0f}" height="12" role="img" aria-label="{value:+.4g}">'
        f'<rect x="{left:.1f}" y="1" width="{length:.1f}" height="10" fill="{_BAD if value < 0 else _PLAIN}"/>'
        f'<line x1="{_WIDE / 2}" x2="{_WIDE / 2}" y1="0" y2="12" stroke="#888"/></svg>'
    )


def stairs(points: Sequence[tuple[float, float]], top: float = 100.0) -> Html:
    """A value over time that keeps until the next point, in seconds from the first one; `top` is the height."""
    if len(points) < 2:
        return Html("")
    width, height, first = 420.0, 90.0, points[0][0]
    span = max(points[-1][0] - first, 1e-9)
    at = [(width * (moment - first) / span, height * (1 - value / top)) for moment, value in points]
    path = f"M{at[0][0]:.1f},{at[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in at[1:])
    return Html(
        f'<svg width="{width + 70:.0f}" height="{height + 22:.0f}" role="img" aria-label="share over time">'
        f'<g transform="translate(40,4)"><path d="{path}" fill="none" stroke="{_PLAIN}" stroke-width="2"/>'
        f'<path d="M0,0V{height}H{width}" fill="none" stroke="#888"/>'
        f'<text x="-4" y="8" font-size="10" text-anchor="end">{top:.0f} %</text>'
        f'<text x="-4" y="{height}" font-size="10" text-anchor="end">0 %</text>'
        f'<text x="{width}" y="{height + 14}" font-size="10" text-anchor="end">{span:.0f} s</text></g></svg>'
    )
