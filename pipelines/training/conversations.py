"""Conversations as tokens: what a chat template makes of them, and which tokens are the assistant's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError

IGNORED = -100  # the label of tokens that nothing is learned from
_PROBE = ("What is it?", "It is this.")


@dataclass(frozen=True, kw_only=True)
class Example:
    """One conversation.

    Attributes:
        ids: its tokens.
        learned: of each, whether it is the assistant's: those of the answer, and the one that ends it.
        before, answer: the text up to the answer, and the answer with its end.
        size: bytes of the answer in UTF-8, without its end.
    """

    ids: list[int]
    learned: list[bool]
    before: str
    answer: str
    size: int

    @property
    def labels(self) -> list[int]:
        """The tokens, `IGNORED` where nothing is learned."""
        return [token if mine else IGNORED for token, mine in zip(self.ids, self.learned, strict=True)]


class Template:
    """A tokenizer's chat template, which is checked when this is made.

    Args:
        tokenizer: of transformers.  system: the message that conversations begin with; "" for none.

    Raises:
        PlatformError: ``code="bad_template"``: there is none, it raises, it loses what is said, an answer has no end,
            or its marks of generation are elsewhere.
    """

    def __init__(self, tokenizer: Any, system: str) -> None:
        self.tokenizer, self.system = tokenizer, system
        self._special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        if not tokenizer.chat_template:
            raise _bad("the tokenizer has none", "give weights of a model that chats")
        self.example(*_PROBE)

    def example(self, prompt: str, answer: str) -> Example:
        """A prompt and its answer as tokens.

        Raises:
            PlatformError: ``code="bad_template"``.
        """
        asked = [{"role": "system", "content": self.system}] if self.system else []
        asked.append({"role": "user", "content": prompt})
        before = self._text(asked, add_generation_prompt=True)
        said = [*asked, {"role": "assistant", "content": answer}]
        whole = self._text(said)
        if prompt.strip() not in before:
            raise _bad("it leaves out what the user says")
        if not whole.startswith(before) or not whole[len(before) :].lstrip().startswith(answer.strip()):
            raise _bad("the answer does not follow what is there when the model is asked", "mend the template")
        found = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        ids, places = found["input_ids"], found["offset_mapping"]
        answered = whole.index(answer.strip(), len(before)) + len(answer.strip())
        end = next(
            (at for at, (start, _) in enumerate(places) if start >= answered and ids[at] in self._special), len(ids)
        )
        if end == len(ids):
            raise _bad("no special token ends an answer, so a model would not learn to stop")
        learned = [start >= len(before) and at <= end for at, (start, _) in enumerate(places)]
        if "generation" in self.tokenizer.chat_template and "endgeneration" in self.tokenizer.chat_template:
            self._check_marks(said, learned)
        text = whole[len(before) : places[end][1]]
        return Example(ids=ids, learned=learned, before=before, answer=text, size=len(answer.strip().encode()))

    def _text(self, messages: Sequence[dict[str, str]], **options: Any) -> str:
        import jinja2

        try:
            text: str = self.tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as err:
            roles = ", ".join(message["role"] for message in messages)
            fix = "leave out the system message: --set model.system=" if self.system else "mend the template"
            raise _bad(f"it raises at messages of {roles}: {err}", fix) from err
        return text

    def _check_marks(self, messages: Sequence[dict[str, str]], learned: Sequence[bool]) -> None:
        made = self.tokenizer.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        marks = [bool(mark) for mark in made["assistant_masks"]]
        if len(marks) == len(learned) and any(mine and not mark for mine, mark in zip(learned, marks, strict=True)):
            raise _bad("its marks of generation leave out a part of the answer, or its end", "mend the template")


def _bad(detail: str, fix: str = "mend the template") -> PlatformError:
    return PlatformError("the chat template cannot be trained with", detail=detail, fix=fix, code="bad_template")


def examples_of(template: Template, prompts: Sequence[str], answers: Sequence[str], most: int) -> list[Example]:
    """All rows as tokens.

    Raises:
        PlatformError: ``code="too_long"``: a row has more than `most` tokens.
    """
    found = []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True), 1):
        one = template.example(prompt, answer)
        if len(one.ids) > most:
            raise PlatformError(
                f"row {row} of the training data has {len(one.ids)} tokens, at most {most} are taken",
                detail="a conversation that is cut would teach to stop anywhere",
                fix=f"--set training.max_tokens={1 << math.ceil(math.log2(len(one.ids)))}, or leave the row out",
                code="too_long",
                row=row,
            )
        found.append(one)
    return found


def shown(tokenizer: Any, example: Example) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it is learned; for the model card."""
    pieces: list[tuple[list[int], bool]] = []
    for token, mine in zip(example.ids, example.learned, strict=True):
        if pieces and pieces[-1][1] == mine:
            pieces[-1][0].append(token)
        else:
            pieces.append(([token], mine))
    return [(tokenizer.decode(ids), mine) for ids, mine in pieces]


def losses(model: Any, examples: Sequence[Example], device: str, rows: int = 8) -> list[float]:
    """Of each conversation the sum of what its learned tokens cost, in nats."""
    import torch

    found: list[float] = [0.0] * len(examples)
    order = sorted(range(len(examples)), key=lambda at: len(examples[at].ids))
    was = model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), rows):
            batch = order[start : start + rows]
            longest = max(len(examples[at].ids) for at in batch)
            ids = torch.zeros(len(batch), longest, dtype=torch.long)
            mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
            for line, at in enumerate(batch):
                size = len(examples[at].ids)
                ids[line, :size] = torch.tensor(examples[at].ids)
                labels[line, :size] = torch.tensor(examples[at].labels)
                mask[line, :size] = 1
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits[:, :-1]
            cost = torch.nn.functional.cross_entropy(
                logits.float().transpose(1, 2), labels[:, 1:].to(device), ignore_index=IGNORED, reduction="none"
            )
            for line, at in enumerate(batch):
                found[at] = float(cost[line].sum())
    model.train(was)
    return found


def bits_per_byte(costs: Sequence[float], examples: Sequence[Example]) -> float:
    """What the answers cost, their ends included, by the bytes of their texts: the same for every tokenizer."""
    return sum(costs) / math.log(2) / max(1, sum(one.size for one in examples))


def perplexity(costs: Sequence[float], examples: Sequence[Example]) -> float:
    """By learned token."""
    return math.exp(min(50.0, sum(costs) / max(1, sum(sum(one.learned) for one in examples))))


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question of the general set; the first of the answers is right."""

    question: str
    answers: tuple[str, ...]


def read_general(file: Path) -> tuple[list[Question], list[str]]:
    """Questions with their right answer and three others of their group, and plain texts.

    The file is CSV ``group,question,answer``; of the group ``text`` the answers are the texts.
    """
    import csv

    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    groups: dict[str, list[str]] = {}
    for row in rows:
        answers = groups.setdefault(row["group"], [])
        if row["answer"] not in answers:
            answers.append(row["answer"])
    questions = []
    for row in rows:
        if row["group"] != "text":
            others = groups[row["group"]]
            at = others.index(row["answer"])
            wrong = [others[(at + step) % len(others)] for step in range(1, min(4, len(others)))]
            questions.append(Question(question=row["question"], answers=(row["answer"], *wrong)))
    return questions, groups.get("text", [])


def general_measures(model: Any, tokenizer: Any, questions: Sequence[Question], texts: Sequence[str], device: str) -> (
    dict[str, float]
):  # fmt: skip
    """What a model knows apart from what it was tuned for.

    Returns ``score``, the mean probability in percent of the right answers among those that are offered; ``right``, the
    share in percent where it is the likeliest; ``bits_per_byte`` of the texts.
    """
    import numpy as np

    template = Template(tokenizer, "")
    offered = [template.example(one.question, answer) for one in questions for answer in one.answers]
    costs = losses(model, offered, device)
    score, right, at = [], [], 0
    for one in questions:
        count = len(one.answers)
        each = np.array(costs[at : at + count])
        chances = np.exp(-(each - each.min()))
        score.append(float(chances[0] / chances.sum()))
        right.append(float(each.argmin() == 0))
        at += count
    plain = [_plain(tokenizer, text) for text in texts]
    bits = bits_per_byte(losses(model, plain, device), plain)
    return {"score": 100 * float(np.mean(score)), "right": 100 * float(np.mean(right)), "bits_per_byte": bits}


def _plain(tokenizer: Any, text: str) -> Example:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Example(ids=ids, learned=[False] + [True] * (len(ids) - 1), before="", answer=text, size=len(text.encode()))
