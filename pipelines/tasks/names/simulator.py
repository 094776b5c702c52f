"""A generator of sentences with names of people, places and organisations, English and Chinese, and where they stand.

Names are put together of parts, so that most of the test's are in no sentence of the training; the sentences around
them are few and plain, and what a model reaches here says nothing about real texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipelines.tasks.names.config import SampleConfig

if TYPE_CHECKING:
    import pyarrow as pa

_GIVEN = [
    "Ada",
    "Amir",
    "Anna",
    "Ben",
    "Carla",
    "Chen",
    "Dora",
    "Elif",
    "Emma",
    "Femi",
    "Greta",
    "Hugo",
    "Ines",
    "Ivan",
    "Jana",
    "Kofi",
    "Lena",
    "Mai",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sami",
    "Tara",
    "Uwe",
    "Vera",
    "Yuki",
    "Zoe",
]
_FIRST = [
    "Ab",
    "Bar",
    "Cor",
    "Dan",
    "El",
    "Fen",
    "Gar",
    "Hol",
    "Is",
    "Jen",
    "Kor",
    "Lan",
    "Mor",
    "Nor",
    "Os",
    "Pet",
    "Ros",
    "San",
    "Tor",
    "Ul",
    "Ver",
    "Wal",
    "Yar",
    "Zim",
]
_LAST = [
    "ber",
    "berg",
    "den",
    "dorf",
    "er",
    "esen",
    "field",
    "ic",
    "ini",
    "ley",
    "man",
    "mann",
    "ova",
    "ris",
    "sen",
    "ski",
    "son",
    "ton",
    "vik",
    "well",
]
_TOWN = ["burg", "bridge", "ford", "ham", "haven", "mouth", "stad", "ton", "ville", "wick"]
_TRADE = [
    "Bank",
    "Foods",
    "Insurance",
    "Logistics",
    "Motors",
    "Software",
    "Telecom",
    "University",
    "Hospital",
    "Holdings",
]
_FORM = ("", "", " Ltd", " Inc.", " Group", " AG")
_SURNAME = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹"
_SIGN = "伟芳娜敏静丽强磊洋艳勇杰娟涛明超霞平刚英华慧建文玲红军燕波宁志国海晓东梅云飞雪峰"
_LAND = "安北昌东福广海河衡湖淮江金九兰临龙洛南宁平青泉山上深石太天西襄宜永云长"
_AREA = ("市", "县", "省", "区", "镇", "村")
_WORK = ("银行", "大学", "医院", "科技有限公司", "保险公司", "报社", "出版社", "研究所", "物流公司", "中学")

_ENGLISH = (
    "My name is {PER} and I live in {LOC}.",
    "{PER} moved from {LOC} to {LOC} last spring.",
    "Please send the contract to {PER}, {ORG}.",
    "{ORG} opened an office in {LOC}.",
    "Yesterday {PER} and {PER} met in {LOC}.",
    "I spoke with {PER} from {ORG} about my order.",
    "The parcel for {PER} was returned to {LOC}.",
    "According to {PER}, the new bridge in {LOC} will be ready in May.",
    "{PER} was hired by {ORG} in 2019.",
    "Could {PER} call me back about the invoice of {ORG}?",
    "The train to {LOC} was late again.",
    "We ordered two chairs and one of them is broken.",
    "Thanks for the quick answer, everything works now.",
    "The meeting at {ORG} starts at 10.30.",
    "Dear {PER}, your card has been blocked.",
    "In {LOC} it rained for three days.",
)
_CHINESE = (
    "我叫{PER}，住在{LOC}。",
    "{PER}去年从{LOC}搬到了{LOC}。",
    "请把合同寄给{ORG}的{PER}。",
    "{ORG}在{LOC}开了一家分公司。",
    "昨天{PER}和{PER}在{LOC}见了面。",
    "{PER}说，新桥五月份可以通车。",
    "{ORG}的{PER}回复了我的邮件。",
    "寄往{LOC}的包裹被退回了，收件人是{PER}。",
    "{PER}于2019年进入{ORG}工作。",
    "{LOC}连续下了三天雨。",
    "订单已经收到，谢谢。",
    "这台电脑用了两年，一直没有坏。",
    "会议上，{PER}介绍了{ORG}的新产品。",
    "记者{PER}从{LOC}报道。",
    "请{PER}尽快与我们联系。",
    "开往{LOC}的火车又晚点了。",
)
_PLACE = re.compile(r"\{(PER|LOC|ORG)\}")


def _english(rng: np.random.Generator) -> Mapping[str, Callable[[], str]]:
    def pick(among: tuple[str, ...] | list[str]) -> str:
        return among[rng.integers(len(among))]

    return {
        "PER": lambda: pick(_GIVEN) + (f" {pick(_FIRST)}{pick(_LAST)}" if rng.random() < 0.7 else ""),
        "LOC": lambda: f"{pick(_FIRST)}{pick(_TOWN)}",
        "ORG": lambda: f"{pick(_FIRST)}{pick(_LAST)} {pick(_TRADE)}{pick(_FORM)}",
    }


def _chinese(rng: np.random.Generator) -> Mapping[str, Callable[[], str]]:
    def pick(among: tuple[str, ...] | str, times: int = 1) -> str:
        return "".join(among[at] for at in rng.integers(len(among), size=times))

    return {
        "PER": lambda: pick(_SURNAME) + pick(_SIGN, int(rng.integers(1, 3))),
        "LOC": lambda: pick(_LAND, 2) + pick(_AREA),
        "ORG": lambda: pick(_LAND, 2) + pick(_WORK),
    }


def simulate(config: SampleConfig, seed: int) -> Iterator[pa.Table]:
    """One table with `config.texts` sentences, half of them English: id, text and spans as JSON."""
    import pyarrow as pa

    rng = np.random.Generator(np.random.Philox(seed))
    languages = ((_ENGLISH, _english(rng)), (_CHINESE, _chinese(rng)))
    rows: dict[str, str] = {}
    while len(rows) < config.texts:
        templates, draw = languages[len(rows) % 2]
        text, spans = _filled(templates[rng.integers(len(templates))], draw)
        rows.setdefault(text, json.dumps(spans))
    values = [(f"t{at}", text, spans) for at, (text, spans) in enumerate(rows.items())]
    names = ("id", "text", "spans")
    yield pa.table(
        {name: pa.array(column, pa.string()) for name, column in zip(names, zip(*values, strict=True), strict=True)}
    )


def _filled(template: str, draw: Mapping[str, Callable[[], str]]) -> tuple[str, list[tuple[int, int, str]]]:
    made, spans, at = "", [], 0
    for match in _PLACE.finditer(template):
        made += template[at : match.start()]
        value = draw[match[1]]()
        spans.append((len(made), len(made) + len(value), match[1]))
        made, at = made + value, match.end()
    return made + template[at:], spans
