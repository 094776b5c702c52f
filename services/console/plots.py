"""Plots as SVG, drawn on the server; every text in them is escaped, colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from services.console.documents import Bars, Step
from services.console.formats import number, percent

_MOST_BARS = 24


def _svg(width: int, height: int, name: str, title: str, text: str, body: Markup, *, fluid: bool = True) -> Markup:
    size = Markup("") if fluid else Markup(' width="{}" height="{}"').format(width, height)
    return Markup(
        '<svg class="plot {name}" viewBox="0 0 {w} {h}"{size} role="img" aria-label="{title}">'
        "<title>{title}</title><desc>{text}</desc>{body}</svg>"
    ).format(name=name, w=width, h=height, size=size, title=title, text=text, body=body)


def _joined(parts: Sequence[Markup]) -> Markup:
    return Markup("").join(parts)


def histogram(title: str, then: Bars | None, now: Bars | None) -> Markup:
    """Shares then, and now where they are known, side by side; bins are equally wide, the ends say their values."""
    shown = then or now
    if shown is None or not shown.shares:
        return Markup("")
    bins = len(shown.labels) == len(shown.shares) + 1
    count = len(shown.shares) if bins else min(len(shown.shares), _MOST_BARS)
    cut = count < len(shown.shares)
    series = [
        (name, _first(bars.shares, count) if cut else list(bars.shares))
        for name, bars in (("then", then), ("now", now))
        if bars is not None
    ]
    top = max([1e-9, *(share for _, shares in series for share in shares)])
    width, height, left, base = 280, 96, 2, 76
    step = (width - 2 * left) / count
    parts = []
    for at, (name, shares) in enumerate(series):
        wide = step * (0.42 if len(series) > 1 else 0.84)
        for index, share in enumerate(shares):
            tall = 68 * share / top
            x = left + index * step + step * 0.08 + at * wide
            parts.append(
                Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"></rect>').format(
                    name, x, base - tall, wide, tall
                )
            )
    parts.append(Markup('<line class="axis" x1="0" x2="{0}" y1="{1}" y2="{1}"></line>').format(width, base + 0.5))
    first, last = shown.labels[0], "…" if cut else shown.labels[-1]
    parts.append(Markup('<text x="2" y="91">{}</text>').format(_cut(first)))
    if count > 1 or bins:
        parts.append(Markup('<text x="{}" y="91" text-anchor="end">{}</text>').format(width - 2, _cut(last)))
    said = "; ".join(f"{name}: {', '.join(percent(share) for share in shares)}" for name, shares in series)
    return _svg(width, height, "histogram", title, said, _joined(parts))


def _first(shares: Sequence[float], count: int) -> list[float]:
    """The first shares, and the sum of the others as the last."""
    return [*shares[: count - 1], sum(shares[count - 1 :])]


def _cut(text: str, most: int = 18) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def trend(title: str, points: Sequence[tuple[str, float, float | None, float | None]], limit: float | None) -> Markup:
    """A measure by version, oldest first, as (version, value, low, high); `limit` is the gate's."""
    if not points:
        return Markup("")
    values = [value for point in points for value in point[1:] if value is not None]
    values += [limit] if limit is not None else []
    low, high = min(values), max(values)
    pad = (high - low) * 0.15 or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad
    width, height, left, right, base = 560, 150, 52, 548, 122

    def y(value: float) -> float:
        return 10 + (base - 10) * (high - value) / (high - low)

    def x(index: int) -> float:
        return (left + right) / 2 if len(points) == 1 else left + 16 + (right - left - 32) * index / (len(points) - 1)

    parts = [
        Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"></line>').format(left, right, y(v), y(v))
        + Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(left - 6, y(v) + 3.5, number(v, 3))
        for v in (low + pad / 2, (low + high) / 2, high - pad / 2)
    ]
    if limit is not None:
        parts.append(
            Markup('<line class="limit" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"></line>').format(
                left, right, y(limit), y(limit)
            )
        )
    line = " ".join(f"{x(at):.1f},{y(point[1]):.1f}" for at, point in enumerate(points))
    parts.append(Markup('<polyline class="line" points="{}"></polyline>').format(line))
    for at, (version, value, under, over) in enumerate(points):
        if under is not None and over is not None:
            parts.append(
                Markup('<line class="interval" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"></line>').format(
                    x(at), y(under), y(over)
                )
            )
        parts.append(Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3.5"></circle>').format(x(at), y(value)))
        if len(points) <= 16 or at % (len(points) // 8) == 0:
            parts.append(
                Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(x(at), base + 18, version)
            )
    said = "; ".join(f"{version}: {number(value)}" for version, value, _, _ in points)
    return _svg(width, height, "trend", title, said, _joined(parts))


def spark(title: str, points: Sequence[tuple[str, float]]) -> Markup:
    """A number by time as a line, from 0 on; the last one has a dot."""
    width, height, base = 280, 40, 34
    top = max([0.1, *(value for _, value in points)])
    step = (width - 8) / max(1, len(points) - 1)
    places = [(4 + at * step, base - 28 * max(0.0, value) / top) for at, (_, value) in enumerate(points)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    body = Markup(
        '<line class="axis" x1="0" x2="{w}" y1="{b}.5" y2="{b}.5"></line>'
        '<polyline class="line" points="{line}"></polyline>'
        '<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"></circle>'
    ).format(w=width, b=base, line=line, x=places[-1][0], y=places[-1][1])
    said = "; ".join(f"{when}: {number(value)}" for when, value in points[-12:])
    return _svg(width, height, "spark", title, said, body)


def meter(title: str, share: float | None, *, budget: bool = False) -> Markup:
    """A part of a whole as a bar; of a `budget`, little is bad and looks so."""
    if share is None:
        return Markup("")
    part = min(1.0, max(0.0, share))
    level = "part" if not budget else "low" if part < 0.1 else "middle" if part < 0.4 else "high"
    body = Markup(
        '<rect class="trough" width="64" height="6" rx="3"></rect>'
        '<rect class="{}" width="{:.1f}" height="6" rx="3"></rect>'
    ).format(level, 64 * part)
    return _svg(64, 6, "meter", title, percent(share), body, fluid=False)


def graph(title: str, steps: Sequence[Step], words: Mapping[str, str]) -> Markup:
    """The steps of a run from left to right, each after those whose output it takes; `words` are their states."""
    level: dict[str, int] = {}
    for step in steps:  # in the order in which they can run
        level[step.name] = 1 + max([level.get(need, -1) for need in step.needs], default=-1)
    rows: dict[int, int] = {}
    place: dict[str, tuple[float, float]] = {}
    for step in steps:
        column = level[step.name]
        place[step.name] = 8 + column * 132.0, 8 + 56.0 * rows.setdefault(column, 0)
        rows[column] += 1
    if not place:
        return Markup("")
    width = int(8 + 132 * (1 + max(level.values())))
    height = int(8 + 56 * max(rows.values()))
    skips = any(level[s.name] - level[n] > 1 for s in steps for n in s.needs if n in level)
    arrows = [_arrow(place[need], place[step.name]) for step in steps for need in step.needs if need in place]
    boxes = [_box(step, place[step.name], words.get(step.status, step.status)) for step in steps]
    said = "; ".join(f"{step.name}: {words.get(step.status, step.status)}" for step in steps)
    return _svg(width, height + 26 * skips, "graph", title, said, _joined([*arrows, *boxes]), fluid=False)


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> Markup:
    (x1, y1), (x2, y2) = (start[0] + 108, start[1] + 20), (end[0], end[1] + 20)
    if x2 - x1 < 60 or y1 != y2:
        middle = (x1 + x2) / 2
        path = f"M{x1:.0f} {y1:.0f} C{middle:.0f} {y1:.0f} {middle:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
    else:  # over the steps between
        low = y1 + 32
        path = f"M{x1 - 54:.0f} {y1 + 20:.0f} C{x1 - 30:.0f} {low + 16:.0f} {x2 + 20:.0f} {low + 16:.0f}"
        path += f" {x2 + 54:.0f} {y2 + 20:.0f}"
    return Markup('<path class="arrow" d="{}"></path>').format(path)


def _box(step: Step, at: tuple[float, float], word: str) -> Markup:
    return Markup(
        '<g class="step {state}"><rect x="{x:.0f}" y="{y:.0f}" width="108" height="40" rx="5"></rect>'
        '<text class="name" x="{t:.0f}" y="{a:.0f}">{name}</text><text x="{t:.0f}" y="{b:.0f}">{word}</text></g>'
    ).format(
        state=state_class(step.status), x=at[0], y=at[1], t=at[0] + 9, a=at[1] + 17, b=at[1] + 32,
        name=_cut(step.name, 15), word=word,
    )  # fmt: skip


_GOOD = frozenset({"succeeded", "finished", "promoted", "up", "passed", "cached", "watching"})
_BAD = frozenset({"failed", "dead", "rolled_back", "down", "firing", "stopped"})
_ODD = frozenset({"refused", "cancelled", "aborted", "paused", "pending", "warning", "asking"})
_BUSY = frozenset({"running", "starting", "settling"})


def state_class(status: str) -> str:
    """The class of the style sheet for a state of anything."""
    for name, states in (("good", _GOOD), ("bad", _BAD), ("odd", _ODD), ("busy", _BUSY)):
        if status in states:
            return name
    return "none"
