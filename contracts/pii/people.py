"""Names of people, by what stands beside them: "Dr. Weber", "姓名：王小明". A name without such words is not found."""

from __future__ import annotations

import re

from contracts.pii.kind import Draw, Kind, never, words

_SURNAMES = (
    "欧阳|司马|上官|诸葛|皇甫|令狐|慕容|司徒|东方|尉迟|公孙|夏侯|长孙|宇文|端木|百里|南宫"
    "|[王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石"
    "廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤温康施文牛樊葛邢安齐易乔伍庞颜倪庄聂章鲁岳翟殷"
    "詹申欧耿关兰焦俞左柳甘祝包宁尚符舒阮柯纪梅童凌毕单季裴霍涂成苗谷盛曲翁冉骆蓝路游辛靳管柴蒙鲍华喻祁蒲房滕屈饶解牟艾尤阳时穆农"
    "司卓古吉缪简车项连芦麦褚娄窦戚岑景党宫费卜冷晏席卫米柏宗瞿桂全佟应臧闵苟邬边卞姬师仇栾隋商刁沙荣巫寇桑郎甄丛仲虞敖巩佘池查]"
)
_HAN = r"[\u4e00-\u9fff]"
_SAID = (
    "姓名|名字|联系人|收件人|收货人|寄件人|户名|开户人|持卡人|申请人|负责人|代表人|法人|客户|患者|学员|员工|乘客|经办人|签字人|投保人"
    "|监护人"
)
_CALLED = "我叫|名叫|叫做|他叫|她叫|叫作"
_TITLES = "先生|女士|小姐|老师|医生|大夫|教授|律师|太太|夫人|院士|博士"
_UPPER = (
    r"[A-Z\u00c0-\u00d6\u00d8-\u00de\u0100\u010c\u010e\u0118\u011a"
    r"\u0141\u0147\u0158\u0160\u0164\u016e\u0179\u017b\u017d]"
)
_WORD = rf"{_UPPER}[^\W\d_]*(?:['’-][^\W\d_]+)*"
_FULL = rf"{_WORD}(?: {_UPPER}\.)?(?: (?:(?:van|von|de|der|den|da|di|la|le|bin|ben) )*{_WORD}){{0,3}}"
_NOBODY = ("customer", "sir", "madam", "all", "friends", "friend", "team", "colleagues")
_COLUMN = words(
    "(?:full|customer|client|person|patient|first|last|given|family|contact|employee|holder|user) ?names?",
    "surname",
    "姓名",
    "联系人",
    "收件人",
    "收货人",
    "户名",
    "持卡人",
)
_GIVEN = ("Alex", "Robin", "Kim", "Sam", "Lee", "Jamie", "Chris", "Taylor", "Jordan", "Casey", "Morgan", "Riley")
_FAMILY = ("Example", "Sample", "Placeholder", "Doe", "Roe", "Nemo")


def is_named(hint: str) -> bool:
    """Whether words, such as the name of a column, tell that values are names of people."""
    return _COLUMN.search(hint.casefold().replace("_", " ")) is not None


def _known(text: str) -> str:
    return " ".join(text.casefold().split())


def _invented(draw: Draw, value: str) -> str:
    if re.search(_HAN, value):
        given = "".join(draw.pick("一丁七九乙二十千") for _ in range(max(len(value) - 1, 1)))
        return draw.pick("赵钱孙李周吴郑王") + given
    given = draw.pick(_GIVEN)
    return f"{given} {draw.pick(_FAMILY)}" if " " in value else given


CHINESE = Kind(
    name="name",
    pattern=re.compile(
        rf"(?={_HAN})(?:(?<=[:： ])|(?<=叫)|(?<=是)|(?<=名)|(?<=人)|(?<=户)|(?<=者)|(?<=员))"
        rf"(?:(?:{_SURNAMES}){_HAN}{{1,2}})"
        rf"(?=$|[^\u4e00-\u9fff]|{_TITLES}|[，。今是在的和与、住来从已])"
    ),
    context=re.compile(rf"(?:(?:{_SAID})(?:是|为|名)? ?[:：]? ?|(?:{_CALLED}) ?)$"),
    alone=never,
    known=_known,
    rank=2,
    stops=False,
    surrogate=_invented,
    before=True,
)
TITLED = Kind(
    name="name",
    pattern=re.compile(rf"(?={_HAN})(?<![的一各这那位])(?:{_SURNAMES})(?:{_HAN}{{1,2}})??(?={_TITLES})"),
    known=_known,
    rank=2,
    stops=False,
    surrogate=_invented,
)
ENGLISH = Kind(
    name="name",
    pattern=re.compile(
        rf"(?<![^\W\d_])(?:(?:Mr|Mrs|Ms|Miss|Dr|Prof|Sir)\.? "
        rf"|(?i:my name is|i am called|name ?:|attn\.? ?:|dear) )"
        rf"(?P<value>{_FULL})(?![^\W_])"
    ),
    valid=lambda value: value.split()[0] not in _NOBODY,
    known=_known,
    rank=2,
    stops=False,
    surrogate=_invented,
)
WHOLE = Kind(
    name="name",
    pattern=re.compile(rf"\A(?:(?:{_SURNAMES}){_HAN}{{1,2}}|{_FULL})\Z"),
    context=_COLUMN,
    alone=never,
    known=_known,
    rank=2,
    surrogate=_invented,
)

KINDS = (CHINESE, TITLED, ENGLISH, WHOLE)
