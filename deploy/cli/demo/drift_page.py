"""The page that the drift demo ends with: three plots over the same time, and what happened when."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.cli.demo.drift_world import Second, Traffic

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
body { color: #1b1f24; background: #fff }
svg { width: 100%; height: auto }
td { padding: .15rem .8rem .15rem 0; vertical-align: top }
td:first-child { text-align: right; color: #57606a; white-space: nowrap }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117 }
  svg { filter: invert(.92) hue-rotate(180deg) }
}
"""
_TITLE = "Share of requests by version, PSI of the amount, share of alarms"
_SMOOTH = 3  # seconds


def write_page(file: Path, traffic: Traffic, events: Sequence[tuple[float, str]], psi: Mapping[float, float]) -> Path:
    """Write one HTML file that needs no other."""
    rows = "".join(f"<tr><td>{at:.0f} s</td><td>{html.escape(_plain(text))}</td></tr>" for at, text in events)
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Fairlead: prices double</title>
<style>{_STYLE}</style><h1>Prices double</h1>
<p>Who answered, what the monitor saw, and how many alarms the model raised, over the same seconds.</p>
{_figure(traffic.seconds, events, psi)}<h2>What happened</h2><table>{rows}</table></html>
"""
    file.write_text(page, encoding="utf-8")
    return file


def _plain(text: str) -> str:
    """Without the markup of the terminal."""
    return re.sub(r"\[/?(bold|dim)?\]", "", text).strip()


def _figure(seconds: Mapping[int, Second], events: Sequence[tuple[float, str]], psi: Mapping[float, float]) -> str:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, (who, distance, alarms) = plt.subplots(3, 1, figsize=(11, 8), sharex=True, layout="constrained")
    times = sorted(seconds)[1:-1]  # the first and the last second are not whole
    versions = sorted({version for at in times for version in seconds[at].requests}, key=int)
    shares = [[_share(seconds, at, version) for at in times] for version in versions]
    who.stackplot(times, shares, labels=[f"version {version}" for version in versions])
    who.set(ylabel="share of requests", ylim=(0, 1))
    distance.plot(list(psi), list(psi.values()), color="tab:red")
    distance.set(ylabel="PSI of the amount", ylim=(0, None))
    alarms.plot(times, [_alarms(seconds, at) for at in times], color="tab:purple")
    alarms.set(ylabel="share of alarms", ylim=(0, None), xlabel="seconds")
    for axis in (who, distance, alarms):
        for at, text in events:
            if not text.startswith("  "):
                axis.axvline(at, color="grey", linewidth=0.6, linestyle=":")
    who.legend(loc="center left", frameon=True)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Title": _TITLE})
    plt.close(figure)
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def _near(seconds: Mapping[int, Second], at: int) -> list[Second]:
    return [seconds[one] for one in range(at - _SMOOTH, at + _SMOOTH + 1) if one in seconds]


def _share(seconds: Mapping[int, Second], at: int, version: str) -> float:
    asked = seconds[at].requests
    return asked.get(version, 0) / max(1, sum(asked.values()))


def _alarms(seconds: Mapping[int, Second], at: int) -> Any:
    near = _near(seconds, at)
    asked = sum(sum(one.requests.values()) for one in near)
    return sum(sum(one.alerts.values()) for one in near) / max(1, asked)
