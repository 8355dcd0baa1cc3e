"""What the numbers must be: nltk, jieba and rouge_chinese called the way LLaMA-Factory 0.9.5 calls them."""

from __future__ import annotations

import random
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # invalid escapes in old code
    import jieba
    import nltk.translate.bleu_score as nltk_bleu
    import rouge_chinese

jieba.setLogLevel(60)

PAIRS: list[tuple[str, str]] = [
    ("是", "是"),
    ("积极", "消极"),
    ("A", "A"),
    ("Yes", "yes"),
    ("", "你好"),
    ("你好", ""),
    (" ", "你好"),
    ("\n", "\n"),
    ("你好\n", "你好"),
    ("\n\n你好", "你好"),
    ("你好。\n\n再见！", "你好。再见！"),
    ("a\r\nb", "a\nb"),
    (" \nx", "x"),
    ("什么？\n是的。", "什么？是的。\n"),
    ("等等......好吧......", "等等。好吧"),
    ("....... 七", "......七"),
    ("他说：“走吧。”然后走了。", "他说“走吧”，然后就走了。"),
    ("c++和C#都好", "C++ 与 c# 都好"),
    ("AT&T 1.5%", "AT&T1.5%"),
    ("CAT&T c++11", "CATT c++ 11"),
    ("卡拉OK厅里唱T恤", "卡拉OK唱歌"),
    ("3.14是圆周率", "圆周率约为3.14。"),
    ("Mr. Darcy owns Pemberley in Derbyshire.", "Pemberley, in Derbyshire, belongs to Mr. Darcy."),
    ("达西先生是彭伯里庄园的主人，他很骄傲。", "彭伯里的主人达西先生起初显得傲慢。"),
    ("😀😀👍", "😀👍"),
    ("𠀀𠀁 龥鿕鿖㐀", "𠀀 鿕"),
    ("ＡＢＣ１２３", "ABC123"),
    ("naïve café", "naive café"),
    ("the the the the", "the cat"),
    ("一" * 50, "一" * 30),
    ("a\x85b\x1cc\u3000d", "a b c d"),
    ("x\n \n\t\ny", "x y"),
    ("10,000 m² ≈ 1 ha", "10000 m2 = 1 ha"),
    ("_id-1.2.3%-x", "_id - 1.2.3 % x"),
    ("（注）：见《傲慢与偏见》…… ……", "见《傲慢与偏见》……"),
]
"""Hand-made: every oddity that facts about LLaMA-Factory's metrics name, and the borders of the segmentation."""

_PIECES = [
    "我们",
    "在",
    "学习",
    "机器人",
    "的",
    "是",
    "伊丽莎白",
    "喜欢",
    "跳舞",
    "彭伯里",
    "人工智能",
    "大学生",
    "和服",
    "研究生命起源",
    "了",
    "the",
    "cat",
    "Darcy",
    "c++",
    "C#",
    "AT&T",
    "v1.2",
    "50%",
    "a_b",
    "--",
    "......",
    "卡拉OK",
    "T恤",
    "。",
    "！",
    "？",
    "?",
    "，",
    "、",
    "“",
    "”",
    "…",
    "……",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\u3000",
    "é",
    "Ａ",
    "😀",
    "𠀀",
    "龥",
    "鿖",
    "㐀",
    "1",
    ".5",
    "%",
    "+",
    "#",
    "&",
]


def random_text(random_source: random.Random, most: int = 40) -> str:
    """Words, signs and blanks of every kind that the segmentation treats apart."""
    return "".join(random_source.choice(_PIECES) for _ in range(random_source.randint(0, most)))


def random_pair(random_source: random.Random) -> tuple[str, str]:
    """A text and an edited copy of it, so that they share something."""
    one = random_text(random_source)
    cut = random_source.randint(0, len(one))
    return one, one[:cut] + random_text(random_source, 6) + one[cut + random_source.randint(0, 9) :]


def words(text: str) -> list[str]:
    """jieba's own segmentation."""
    return list(jieba.cut(text))


def llama_factory(prediction: str, reference: str) -> dict[str, float]:
    """The four of one pair."""
    scores: dict[str, float] = {"rouge-1": 0.0, "rouge-2": 0.0, "rouge-l": 0.0}
    predicted, referenced = " ".join(words(prediction)), " ".join(words(reference))
    if predicted.split() and referenced.split():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = rouge_chinese.Rouge().get_scores(predicted, referenced)[0]
        scores = {name: round(found[name]["f"] * 100, 4) for name in scores}
    smoothing = nltk_bleu.SmoothingFunction().method3
    bleu = nltk_bleu.sentence_bleu([list(reference)], list(prediction), smoothing_function=smoothing)
    return {**scores, "bleu-4": round(bleu * 100, 4)}
