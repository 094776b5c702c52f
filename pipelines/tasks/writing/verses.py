"""Regulated Chinese verses of four lines with five or seven characters, made up here of words and patterns of our own.

The rules are those of the jueju, by today's pronunciation: a line follows a pattern of level tones (the first two of
Mandarin) and oblique ones, the lines of a couplet are opposite in their second and fourth character, the second and the
fourth line end in a level rhyme, and no character but for doubled ones stands twice in a verse.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

# Characters that describe, that name, that do, and that end a line as what something is; "an", "ou" ... are rhymes.
_DESCRIBE: Mapping[str, str] = {
    "level": "青寒空清残孤高长新秋春金红幽平斜疏浓微闲",
    "oblique": "远晚旧暮野碧翠古淡暗冷静小夜细万半北故断",
}
_NAME: Mapping[str, str] = {
    "an": "山天船川烟泉帆莲田峦",
    "ou": "舟楼鸥洲愁秋沟丘",
    "ang": "霜窗塘江阳光乡墙廊杨",
    "eng": "风灯城声星亭萍钟松峰",
    "oblique": "水月树雨雪路雁影岸径寺鸟草酒梦客露岭海柳",
}
_DO: Mapping[str, str] = {"level": "归飞闻听垂依藏随寻连摇吹临迎", "oblique": "照过落入望映送动卧渡染满醉散宿绕"}
_ARE: Mapping[str, str] = {
    "an": "寒闲圆还残妍",
    "ou": "流幽悠收游柔",
    "ang": "长凉香藏黄苍",
    "eng": "明清生轻鸣平",
    "oblique": "静远冷淡满断起近",
}
RHYMES = ("an", "ou", "ang", "eng")
# N: who or what is named, by two characters, V: what it does, A: what it is; 1 level, 0 oblique, R level, and rhymes.
_LINES: Mapping[str, Sequence[str]] = {
    "a": ("N00 N11 A0", "N00 V1 N10"),
    "b": ("N11 N00 AR", "N11 V0 N0R"),
    "c": ("N11 V1 N00", "N11 N10 A0"),
    "d": ("N00 V0 N1R", "N00 N01 AR"),
}
_VERSES = ("abcd", "cdab")  # which line follows which
TONES: Mapping[str, str] = {
    "a": "00110", "b": "11001", "c": "11100", "d": "00011",
    "A": "1100110", "B": "0011001", "C": "0011100", "D": "1100011",
}  # fmt: skip


def verses(rows: int, seed: int) -> Iterator[dict[str, str]]:
    """Rows with id, beginning (the first couplet) and text (the second one), all different; half have five characters.

    Args:
        rows: how many.  seed: the same seed and number give the same rows.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < rows:
        long = rng.random() < 0.5
        lines = _verse(rng, long)
        if lines is None or "".join(lines) in seen:
            continue
        seen.add("".join(lines))
        yield {
            "id": f"V{len(seen):05d}",
            "beginning": f"{lines[0]}，{lines[1]}。\n",
            "text": f"{lines[2]}，{lines[3]}。",
        }


def faults(text: str) -> list[str]:
    """What a whole verse does against the rules; none for those of `verses`.

    A character that is not among the words here has no tone that is known, and counts as a fault of its line.
    """
    lines = [part for part in text.replace("。", "，").replace("\n", "").split("，") if part]
    if len(lines) != 4 or len({len(line) for line in lines}) != 1 or len(lines[0]) not in (5, 7):
        return ["form"]
    found = []
    tones = ["".join(_tone(one) for one in line) for line in lines]
    orders = ("abcd", "cdab") if len(lines[0]) == 5 else ("ABCD", "CDAB")
    if not any(tones == [TONES[name] for name in order] for order in orders):
        found.append("tones")
    if not any(lines[1][-1] in _NAME[rhyme] + _ARE[rhyme] and lines[3][-1] in _NAME[rhyme] + _ARE[rhyme]
               for rhyme in RHYMES):  # fmt: skip
        found.append("rhyme")
    if len(set("".join(lines))) < len("".join(lines)):
        found.append("repeated")
    return found


def _tone(character: str) -> str:
    level = any(character in pool[name] for pool in (_DESCRIBE, _NAME, _DO, _ARE) for name in pool if name != "oblique")
    oblique = any(character in pool["oblique"] for pool in (_DESCRIBE, _NAME, _DO, _ARE))
    return "?" if level == oblique else "01"[level]


def _verse(rng: random.Random, long: bool) -> list[str] | None:
    """Four lines; None where a character came twice."""
    rhyme, lines = rng.choice(RHYMES), []
    for name in rng.choice(_VERSES):
        parts = rng.choice(_LINES[name]).split()
        if long:  # two characters before, of the other tone
            parts.insert(0, "N11" if parts[0] == "N00" else "N00")
        lines.append("".join(_word(rng, part, rhyme) for part in parts))
    return lines if len(set("".join(lines))) == len("".join(lines)) else None


def _word(rng: random.Random, part: str, rhyme: str) -> str:
    """The characters of a part such as N0R."""
    kind, tones = part[0], part[1:]
    if kind == "N":
        return rng.choice(_DESCRIBE["level" if tones[0] == "1" else "oblique"]) + _last(rng, _NAME, tones[1], rhyme)
    if kind == "V":
        return rng.choice(_DO["level" if tones == "1" else "oblique"])
    return _last(rng, _ARE, tones, rhyme)


def _last(rng: random.Random, pool: Mapping[str, str], tone: str, rhyme: str) -> str:
    if tone == "R":
        return rng.choice(pool[rhyme])
    return rng.choice(pool["oblique"] if tone == "0" else "".join(pool[name] for name in RHYMES))
