"""Orders in texts that are meant for a model: to forget what it was told, or to show it, and the marks of its prompts.

They are patterns: what they miss is not told. Nobody who asks or writes documents has to be obeyed.
"""

from __future__ import annotations

import re

_EARLIER = r"(?:previous|prior|above|earlier|preceding|system|your)"
PATTERNS: dict[str, re.Pattern[str]] = {
    "override": re.compile(
        rf"\b(?:ignore|disregard|forget)\b.{{0,20}}\b{_EARLIER}\b.{{0,20}}\b(?:instruction|prompt|rule|message)s?\b"
        r"|(?:忽略|无视|忘记|不要理会).{0,8}(?:之前|以上|前面|上述|所有|系统).{0,8}(?:指令|提示|规则|要求|说明)",
        re.IGNORECASE | re.DOTALL,
    ),
    "control": re.compile(r"<\|[a-z_]{2,24}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>"),
    "reveal": re.compile(
        r"\b(?:reveal|print|repeat|show|output)\b.{0,20}\b(?:system prompt|system message|initial instructions)\b"
        r"|(?:输出|显示|告诉我|重复).{0,8}(?:系统提示|系统消息|初始指令)",
        re.IGNORECASE | re.DOTALL,
    ),
}
# In a document also what speaks to whoever answers from it: no text about a matter does.
_SPOKEN_TO = re.compile(
    r"\b(?:you are now\b|as an? (?:ai\b|language model)|(?:ai|assistant|chatbot|language model)s?\b.{0,30}"
    r"\b(?:must|should|shall|always|instead)\b"
    r"|(?:answer|reply|respond)\b.{0,12}\b(?:every|all|any) questions?\b|new instructions?:|do not cite\b)"
    r"|(?:你现在是|作为(?:一个|一名)?(?:AI|人工智能|助手)|(?:助手|AI|人工智能|模型).{0,6}(?:必须|应当|只能|始终)"
    r"|(?:所有|任何|每个)问题.{0,6}(?:回答|回复)|新的?指令[:：]|不要引用)",
    re.IGNORECASE,
)


def in_document(text: str) -> bool:
    """Whether a piece of a document orders whoever answers from it to do something, or has marks of a prompt."""
    return any(pattern.search(text) for pattern in (*PATTERNS.values(), _SPOKEN_TO))
