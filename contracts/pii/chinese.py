"""Kinds of Chinese texts. `\\b` finds no border beside Chinese signs, so borders are looked for by hand."""

from __future__ import annotations

import re

from contracts.pii import checks
from contracts.pii.kind import Draw, Kind, apart, compact, never, words

_FREE = r"(?<![0-9A-Za-z])(?<!\d\.)"  # nothing of a number or a word before
_END = r"(?![0-9A-Za-z]|\.\d)"
_ID_GROUPS = r"[1-8](?:[ -]{0,2}\d){16}[ -]{0,2}[\dXx]"
_PHONE = words(
    "电话",
    "手机",
    "联系",
    "致电",
    "拨打",
    "座机",
    "传真",
    "热线",
    "号码",
    "微信",
    "tel",
    "phone",
    "mobile",
    "fax",
    "call",
)
_PROVINCES = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|陕西|甘肃"
    "|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
_H = r"[\u4e00-\u9fff]"
_ROADS = "(?:大道|大街|胡同|路|街|巷|弄|里|村|镇|乡|道|园|苑|小区|花园|新村)"


def _mobile_number(value: str) -> str:
    return re.sub(r"^(?:00)?86(?=1\d{10}$)", "", re.sub(r"\D", "", value))


def _mobile(value: str) -> bool:
    digits = _mobile_number(value)
    return len(digits) == 11 and len(set(digits[3:])) > 1


def _keep_three(draw: Draw, value: str) -> str:
    return draw.like(value, keep=3)


def _id(draw: Draw, value: str) -> str:
    day = f"{1950 + draw.below(55)}{draw.below(12) + 1:02d}{draw.below(28) + 1:02d}"
    body = f"{draw.like(value[:6], keep=2)}{day}{draw.like('000')}"
    return body + checks.chinese_id_sign(body)


def _old_id(draw: Draw, value: str) -> str:
    day = f"{50 + draw.below(50)}{draw.below(12) + 1:02d}{draw.below(28) + 1:02d}"
    return f"{draw.like(value[:6], keep=2)}{day}{draw.like('000')}"


def _credit_code(draw: Draw, value: str) -> str:
    body = value[:4] + draw.like("0000") + "".join(draw.pick(checks.CREDIT_SIGNS) for _ in range(9))
    return body + checks.credit_code_sign(body)


def _passport(draw: Draw, value: str) -> str:
    return draw.like(value, keep=1)


def _plate(draw: Draw, value: str) -> str:
    return draw.like(value, keep=2).translate(str.maketrans("IO", "JP"))


def _address(draw: Draw, value: str) -> str:
    return f"示例路{draw.below(999) + 1}号"


ID = Kind(
    name="cn_id",
    pattern=re.compile(rf"(?<![0-9A-Za-z])(?:[1-8]\d{{16}}[\dXx]|{apart(_ID_GROUPS)})(?![0-9A-Za-z])"),
    valid=checks.chinese_id,
    rank=10,
    chance=0.0001,
    surrogate=_id,
    split=True,
)
OLD_ID = Kind(
    name="cn_id",
    pattern=re.compile(r"(?<![0-9A-Za-z.])[1-8]\d{14}(?![0-9A-Za-z]|\.\d)"),
    valid=checks.old_chinese_id,
    context=words("身份证", "证件", "公民身份", "id card", "identity"),
    alone=never,
    rank=7,
    surrogate=_old_id,
)
MOBILE = Kind(
    name="phone",
    pattern=re.compile(
        r"(?=[\d+(])(?:(?<![0-9A-Za-z+])|(?<=tel)|(?<=wx)|(?<=qq)|(?<=TEL)|(?<=Tel)|(?<=phone))(?<!\d\.)"
        r"(?:(?:\+|00)?86[ -]?|\(\+?86\) ?)?"
        rf"(?:1[3-9]\d{{9}}|{apart('1[ -]?[3-9](?:[ -]?[0-9]){9}')})"
        r"(?![0-9A-Za-z]|\.\d)"
    ),
    valid=_mobile,
    known=_mobile_number,
    rank=7,
    chance=0.07,
    surrogate=_keep_three,
)
LANDLINE = Kind(
    name="phone",
    pattern=re.compile(
        _FREE
        + r"(?:(?:\+|00)?86[ -]?)?(?:\(0(?:10|2\d|[3-9]\d\d)\) ?|0(?:10|2\d|[3-9]\d\d)[ -]?)[2-8]\d{2,3}[ -]?\d{4}"
        r"(?:(?:转|-|ext\.?| x) ?\d{1,6})?" + _END
    ),
    context=_PHONE,
    alone=lambda text, value: "-" in text or "(" in text or text[:1] == "+",
    rank=6,
    surrogate=_keep_three,
)
CREDIT_CODE = Kind(
    name="cn_credit_code",
    pattern=re.compile(
        r"(?<![0-9A-Za-z])[1-9AGNYagny][0-9A-Za-z][ -]?\d{6}[ -]?[0-9A-Za-z]{9}[ -]?[0-9A-Za-z](?![0-9A-Za-z])"
    ),
    valid=checks.credit_code,
    rank=9,
    chance=0.01,
    surrogate=_credit_code,
    split=True,
)
PASSPORT = Kind(
    name="passport",
    pattern=re.compile(
        r"(?<![0-9A-Za-z])(?:[EGDSPHegdsph] ?\d{8}|[Ee][A-HJ-NP-Za-hj-np-z]\d{7}|1[45]\d{7}"
        r"|[CHMWchmw]\d{8})(?![0-9A-Za-z])"
    ),
    context=words("护照", "通行证", "出入境", "证件", "passports?"),
    alone=never,
    rank=6,
    surrogate=_passport,
)
PLATE = Kind(
    name="plate",
    pattern=re.compile(
        r"(?:[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Za-hj-np-z][ ·•.-]?"
        r"(?=[A-Za-z]{0,3}\d)(?:[A-HJ-NP-Za-hj-np-z0-9]{6}|[A-HJ-NP-Za-hj-np-z0-9]{5}|[A-HJ-NP-Za-hj-np-z0-9]{4}[挂学警港澳])"
        r"|[使领]\d{6}|\d{6}[使领])(?![0-9A-Za-z])"
    ),
    valid=lambda value: sum(sign.isdigit() for sign in value) >= 2,
    known=compact,
    rank=6,
    surrogate=_plate,
)
ADDRESS = Kind(
    name="address",
    pattern=re.compile(
        rf"(?={_H})(?:(?:{_PROVINCES})(?:省|市|自治区|壮族自治区|回族自治区|维吾尔自治区)?{_H}{{0,20}}?"
        rf"|(?<=[住在于址到至是为:：,，。；;（( ])(?![在于址到是为]){_H}{{1,6}}?[市区县]{_H}{{0,14}}?"
        rf"|(?<=[住在于址到至为:：,，。 ])(?![在于址到是为]){_H}{{1,10}}?)"
        rf"{_ROADS}(?:{_H}{{0,8}}?{_ROADS})? ?\d{{1,5}} ?(?:[-之]\d{{1,4}})?(?:号院|号楼|号|弄|幢|栋|座)"
        rf"(?:(?:{_H}{{0,8}}?\d{{1,4}}|[A-Za-z]|{_H}{{1,6}})(?:号楼|单元|楼|层|室|号|栋|幢|座|房|户)){{0,4}}"
    ),
    known=compact,
    rank=4,
    surrogate=_address,
)

KINDS = (ID, OLD_ID, MOBILE, LANDLINE, CREDIT_CODE, PASSPORT, PLATE, ADDRESS)
