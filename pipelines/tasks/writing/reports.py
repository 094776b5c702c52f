"""Short reports of local news with their facts and headline, made up here in English and Chinese.

Places and people are invented. A report tells every fact once and nothing else, so what a model leaves out or adds can
be counted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


def _listed(text: str) -> list[str]:
    return text.split("/")


_ENGLISH: Mapping[str, Sequence[str]] = {
    "who": _listed(
        "Anna Berg/Tom Reed/Ines Costa/Paul Lind/Mary Hall/Omar Aziz/Nina Vogt/Jack Moss/Lea Roth/Carl Dunn/Ruth Kane/"
        "Ivan Petrov/Sara Lopez/Hugo Brandt/Emma Clay/Noah Stein"
    ),
    "where": _listed(
        "Larkfield/Old Mill/Stone Bay/Ashford/Rivermouth/Pine Hill/Westport/Greyling/Elmwood/Sandby/Northgate/Fairlee"
    ),
    "when": _listed("Monday/Tuesday/Wednesday/Thursday/Friday/Saturday/Sunday"),
}
_CHINESE: Mapping[str, Sequence[str]] = {
    "人物": _listed("王小梅/李建国/张海涛/刘芳/陈志远/杨丽/赵明/周婷/吴刚/孙雪/马超群/高洁"),
    "地点": _listed("青石镇/柳河村/云山县/白鹭湾/东桥区/梅岭市/古槐镇/长滩村/南浦县/松林区"),
    "时间": _listed("周一/周二/周三/周四/周五/周六/周日"),
}


@dataclass(frozen=True)
class _Kind:
    """One kind of event: headlines, and for each sentence the ways to say it; `low` to `high` is its number."""

    number: str
    low: int
    high: int
    headlines: Sequence[str]
    sentences: Sequence[Sequence[str]]


_KINDS = (
    _Kind(
        "visitors", 20, 990,
        ("New library opens in {where}", "{where} has a library again"),
        (
            ("A new library opened in {where} on {when}.", "On {when} the town of {where} opened its new library."),
            ("{number} visitors came on the first day.", "On its first day it had {number} visitors."),
            ("\"We waited years for this,\" said {who}, who runs it.", "{who}, who runs it, spoke of a happy day."),
        ),
    ),
    _Kind(
        "houses", 3, 240,
        ("River floods {where}", "High water in {where}"),
        (
            ("The river rose over its banks in {where} on {when}.", "{where} was flooded on {when}."),
            ("Water stood in {number} houses.", "In all, {number} houses were damaged."),
            ("Nobody was hurt, said {who} of the fire brigade.", "{who} of the fire brigade sees the water fall."),
        ),
    ),
    _Kind(
        "runners", 40, 960,
        ("{who} wins race in {where}", "Victory for {who}"),
        (
            ("{who} won the race through {where} on {when}.", "The race in {where} on {when} was won by {who}."),
            ("{number} runners took part.", "There were {number} runners at the start."),
        ),
    ),
    _Kind(
        "tonnes", 5, 900,
        ("Good apples from {where}", "Farmers in {where} are glad"),
        (
            ("The harvest in {where} ended on {when}.", "On {when} the last apples were picked in {where}."),
            ("{number} tonnes were brought in.", "It brought {number} tonnes."),
            ("\"We had sun when we needed it,\" said {who}.", "{who}, a farmer, spoke of the best year in a decade."),
        ),
    ),
)  # fmt: skip
_KINDS_CHINESE = (
    _Kind(
        "访客", 20, 990,
        ("{where}新图书馆开放", "{where}有了图书馆"),
        (
            ("{when}，{where}新图书馆正式开放。", "{where}新图书馆于{when}开馆。"),
            ("首日有{number}名访客。", "第一天共接待{number}名访客。"),
            ("馆长{who}说，大家等了很多年。", "负责人{who}表示十分高兴。"),
        ),
    ),
    _Kind(
        "房屋", 3, 240,
        ("{where}发生洪水", "河水淹了{where}"),
        (
            ("{when}，河水漫过{where}的堤岸。", "{where}在{when}遭遇洪水。"),
            ("{number}间房屋进水。", "共有{number}间房屋受损。"),
            ("消防队的{who}说，没有人受伤。", "{who}说，水位正在下降。"),
        ),
    ),
    _Kind(
        "选手", 40, 960,
        ("{who}赢得{where}赛跑", "{who}夺冠"),
        (
            ("{when}，{who}赢得{where}赛跑。", "{where}赛跑于{when}举行，{who}获胜。"),
            ("共有{number}名选手参加。", "起点有{number}名选手。"),
        ),
    ),
)  # fmt: skip


def reports(rows: int, seed: int) -> Iterator[dict[str, str]]:
    """Rows with id, headline, facts and text, of different facts; two of three are English."""
    rng = random.Random(seed)
    used: set[str] = set()
    while len(used) < rows:
        chinese = rng.random() < 1 / 3
        kind, pools = (rng.choice(_KINDS_CHINESE), _CHINESE) if chinese else (rng.choice(_KINDS), _ENGLISH)
        found = {name: rng.choice(pool) for name, pool in pools.items()}
        number = str(rng.randint(kind.low, kind.high))
        who, where, when = found.values()
        said = {"who": who, "where": where, "when": when, "number": number}
        colon, end, gap = ("：", "\n", "") if chinese else (": ", "\n", " ")
        names = {**found, kind.number: number}
        facts = end.join(f"{name}{colon}{value}" for name, value in names.items())
        if facts in used:
            continue
        used.add(facts)
        yield {
            "id": f"{'Z' if chinese else 'E'}{len(used):05d}",
            "headline": rng.choice(kind.headlines).format(**said),
            "facts": facts,
            "text": gap.join(rng.choice(ways).format(**said) for ways in kind.sentences),
        }
