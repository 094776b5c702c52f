"""Short instructions with answers of a fixed form, made up here, in English and Chinese; each with a worse answer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

SYSTEM = 'Answer as JSON: {"answer": "..."} or {"答案": "..."}'
FORMAT = r'\{"(answer|答案)": "[^"\n]+"\}'


def _listed(text: str) -> list[str]:
    return text.split()


_WORDS = _listed(
    "apple river window garden bottle candle doctor engine flower guitar hammer island jacket kitchen ladder market "
    "needle orange pencil rabbit silver tunnel valley winter yellow basket cotton desert forest harbour insect jungle "
    "lemon mirror notebook ocean palace quarry ribbon saddle temple uniform village wagon anchor blanket castle dragon"
)
_KINDS = {
    "animal": _listed("tiger sheep eagle whale beaver donkey lizard salmon parrot badger spider monkey"),
    "plant": _listed("rose oak tulip cactus fern bamboo clover maple daisy moss willow ivy"),
    "tool": _listed("saw spade drill wrench chisel rake pliers axe file trowel clamp plane"),
}
_OPPOSITES = _listed(
    "hot/cold up/down fast/slow hard/soft left/right near/far thick/thin deep/shallow strong/weak clean/dirty "
    "sharp/blunt wide/narrow heavy/light begin/end buy/sell push/pull win/lose remember/forget"
)
_CHINESE_WORDS = _listed(
    "苹果 河流 窗户 花园 瓶子 蜡烛 医生 火车 铅笔 兔子 城市 森林 镜子 海洋 城堡 老师 朋友 月亮 雨伞 书包"
)
_CHINESE_KINDS = {
    "动物": _listed("老虎 绵羊 老鹰 鲸鱼 驴子 蜥蜴 鹦鹉 猴子"),
    "植物": _listed("玫瑰 橡树 竹子 仙人掌 柳树 菊花 枫树 苔藓"),
    "工具": _listed("锯子 铲子 钻头 扳手 斧头 钳子 锉刀 刨子"),
}
_CHINESE_OPPOSITES = _listed("大小 多少 高低 长短 远近 快慢 冷热 新旧 轻重 左右 前后 黑白")


def _larger(rng: random.Random) -> tuple[str, str, str]:
    low, high = sorted(rng.sample(range(10, 999), 2))
    first, second = rng.sample([low, high], 2)
    return f"Which is larger, {first} or {second}?", str(high), str(low)


def _capitals(rng: random.Random) -> tuple[str, str, str]:
    word = " ".join(rng.sample(_WORDS, 2))
    return f"Write in capital letters: {word}", word.upper(), word


def _kind(rng: random.Random) -> tuple[str, str, str]:
    right, wrong = rng.sample(list(_KINDS), 2)
    first, second = rng.sample(_WORDS, 2)
    return (
        f"{rng.choice(_KINDS[right])}, not {first} or {second}: animal, plant or tool?",
        right,
        wrong,
    )


def _opposite(rng: random.Random) -> tuple[str, str, str]:
    pair, other = (rng.sample(each.split("/"), 2) for each in rng.sample(_OPPOSITES, 2))
    return f"The opposite of {pair[0]}, not of {other[0]}?", pair[1], other[1]


def _last(rng: random.Random) -> tuple[str, str, str]:
    words = rng.sample(_WORDS, 4)
    return f"Which word is last: {', '.join(words)}?", words[-1], words[0]


def _sum(rng: random.Random) -> tuple[str, str, str]:
    first, second = rng.randint(1, 40), rng.randint(1, 40)
    return f"What is {first} plus {second}?", str(first + second), str(first + second + rng.choice((-1, 1)))


def _larger_chinese(rng: random.Random) -> tuple[str, str, str]:
    low, high = sorted(rng.sample(range(10, 999), 2))
    first, second = rng.sample([low, high], 2)
    return f"{first}和{second}哪个大？", str(high), str(low)


def _kind_chinese(rng: random.Random) -> tuple[str, str, str]:
    right, wrong = rng.sample(list(_CHINESE_KINDS), 2)
    first, second = rng.sample(_CHINESE_WORDS, 2)
    word = rng.choice(_CHINESE_KINDS[right])
    return f"中间词的类别：{first}、{word}、{second}", right, wrong


def _opposite_chinese(rng: random.Random) -> tuple[str, str, str]:
    pair, second, third, last = (rng.sample(list(each), 2) for each in rng.sample(_CHINESE_OPPOSITES, 4))
    return f"首字的反义：{pair[0]}、{second[0]}、{third[0]}、{last[0]}", pair[1], second[1]


def _last_chinese(rng: random.Random) -> tuple[str, str, str]:
    words = rng.sample(_CHINESE_WORDS, 3)
    return f"最后一个词：{'、'.join(words)}", words[-1], words[0]


_ENGLISH = (_larger, _capitals, _kind, _opposite, _last, _sum)
_CHINESE = (_larger_chinese, _kind_chinese, _opposite_chinese, _last_chinese)


def instructions(rows: int, seed: int) -> Iterator[dict[str, str]]:
    """Rows with id, prompt, answer and rejected, of different prompts; three of four are English.

    A worse answer is the right one without its form, or a wrong one in it.
    """
    rng = random.Random(seed)
    used: set[str] = set()
    while len(used) < rows:
        chinese = rng.random() < 0.25
        makers: tuple[Callable[[random.Random], tuple[str, str, str]], ...] = _CHINESE if chinese else _ENGLISH
        prompt, right, wrong = rng.choice(makers)(rng)
        if prompt in used:
            continue
        used.add(prompt)
        key = "答案" if chinese else "answer"
        plain = f"答案是{right}。" if chinese else f"The answer is {right}."
        yield {
            "id": f"{'Z' if chinese else 'E'}{len(used):04d}",
            "prompt": prompt,
            "answer": _form(key, right),
            "rejected": plain if rng.random() < 0.5 else _form(key, wrong),
        }


def _form(key: str, value: str) -> str:
    return json.dumps({key: value}, ensure_ascii=False)
