"""Made-up personal data in sentences, each with the places of what is in it: for tests and benchmarks."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from contracts.pii import checks

WIDE = str.maketrans({code: chr(code + 0xFEE0) for code in range(0x21, 0x7F)})
_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


@dataclass(frozen=True)
class Sample:
    """A text, the kind of the one personal value in it, and where that is."""

    text: str
    kind: str
    start: int
    end: int


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def chinese_id(rng: random.Random) -> str:
    day = f"{rng.randint(1940, 2010)}{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}"
    body = (
        f"{rng.choice(sorted(checks.PROVINCES))}{rng.randint(1, 20):02d}{rng.randint(1, 30):02d}{day}{digits(rng, 3)}"
    )
    return body + checks.chinese_id_sign(body)


def mobile(rng: random.Random) -> str:
    return f"1{rng.choice('3456789')}{digits(rng, 9)}"


def landline(rng: random.Random) -> str:
    area = rng.choice(["010", "021", "020", "0755", "0571", "0431", "028"])
    return f"{area}-{rng.randint(2, 8)}{digits(rng, 7 if len(area) == 3 else rng.choice((6, 7)))}"


def card(rng: random.Random) -> str:
    start, length = rng.choice([("62", 16), ("62", 19), ("4", 16), ("52", 16), ("37", 15)])
    body = start + digits(rng, length - len(start) - 1)
    return next(body + last for last in "0123456789" if checks.luhn(body + last))


def passport(rng: random.Random) -> str:
    return f"{rng.choice('EG')}{digits(rng, 8)}" if rng.random() < 0.7 else f"E{rng.choice(_LETTERS)}{digits(rng, 7)}"


def plate(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return f"{rng.choice(_PROVINCES)}{rng.choice(_LETTERS)}{rng.choice('DF')}{digits(rng, 5)}"
    tail = digits(rng, 3) + rng.choice(_LETTERS) + digits(rng, 1)
    return f"{rng.choice(_PROVINCES)}{rng.choice(_LETTERS)}{rng.choice(['', '·'])}{tail}"


def credit_code(rng: random.Random) -> str:
    body = "91" + rng.choice(sorted(checks.PROVINCES)) + digits(rng, 4)
    body += "".join(rng.choice(checks.CREDIT_SIGNS) for _ in range(9))
    return body + checks.credit_code_sign(body)


def address(rng: random.Random) -> str:
    city = rng.choice(
        ["北京市海淀区", "上海市浦东新区", "广东省深圳市南山区", "浙江省杭州市西湖区", "四川省成都市武侯区"]
    )
    road = rng.choice(["中关村大街", "世纪大道", "科技园南路", "文三路", "人民南路"])
    tail = rng.choice(
        ["", f"{rng.randint(1, 30)}号楼{rng.randint(101, 3309)}室", f"{rng.randint(1, 9)}栋{rng.randint(1, 6)}单元"]
    )
    return f"{city}{road}{rng.randint(1, 999)}号{tail}"


MAKERS: dict[str, list[tuple[Callable[[random.Random], str], list[str]]]] = {
    "cn_id": [(chinese_id, ["身份证号{}，请核对。", "客户{}已登记", "公民身份号码：{}", "ID {} verified"])],
    "phone": [
        (mobile, ["我的手机是{}，打给我", "请拨打{}联系客服", "微信同号{}", "call me at {} please"]),
        (landline, ["座机{}，工作时间接听", "传真：{}", "公司电话{}转前台"]),
    ],
    "card": [(card, ["银行卡号{}。", "请转账到{}，谢谢", "卡号是{}", "my card {} was charged"])],
    "passport": [(passport, ["护照号{}有效", "请出示护照{}", "passport no. {}"])],
    "plate": [(plate, ["车牌{}违停", "我的车是{}，停在楼下", "车辆{}已入场"])],
    "cn_credit_code": [(credit_code, ["统一社会信用代码：{}", "企业{}已注销", "税号{}"])],
    "address": [(address, ["我住在{}。", "寄到{}，谢谢", "地址：{}", "公司位于{}"])],
}
SPLIT = ("cn_id", "card", "phone")  # numbers that people write in groups


def _written(rng: random.Random, kind: str, value: str) -> str:
    """As people write it: sometimes in full width, or in groups."""
    if kind in SPLIT and "-" not in value and rng.random() < 0.3:
        sizes = {"phone": [3, 4, 4], "cn_id": [6, 4, 4, 4]}.get(kind, [4] * 5)
        groups, at = [], 0
        for size in sizes:
            groups.append(value[at : at + size])
            at += size
        value = rng.choice(" -").join(filter(None, groups))
    return value.translate(WIDE) if kind != "address" and rng.random() < 0.15 else value


def samples(seed: int, each: int) -> Iterator[Sample]:
    """`each` sentences of every kind."""
    rng = random.Random(seed)
    for kind, makers in MAKERS.items():
        for number in range(each):
            make, sentences = makers[number % len(makers)]
            value = _written(rng, kind, make(rng))
            before, after = rng.choice(sentences).split("{}")
            yield Sample(before + value + after, kind, len(before), len(before) + len(value))


def ordinary(seed: int, count: int) -> Iterator[str]:
    """Sentences with numbers that are nobody's: orders, sums, days, versions, readings."""
    rng = random.Random(seed)
    for _ in range(count):
        day = f"{rng.randint(10, 28)}"
        yield rng.choice(
            [
                f"订单{digits(rng, 20)}已发货",
                f"金额{rng.randint(1, 10**7) / 100}元",
                f"于20{digits(rng, 2)}-0{rng.randint(1, 9)}-{day}到账",
                f"order {digits(rng, 8)} of 2024-05-{day}",
                f"version {rng.randint(1, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}",
                f"took {rng.random():.9f} s",
                f"at 15{digits(rng, 8)} (epoch)",
                f"sha {rng.getrandbits(160):040x}",
                f"uuid {uuid.UUID(int=rng.getrandbits(128))}",
                f"第{rng.randint(1, 99)}路公交车共{rng.randint(1, 30)}站",
                f"room {rng.randint(100, 999)}, {rng.randint(2, 9)}:30 pm, {rng.randint(2, 9)} people",
            ]
        )
