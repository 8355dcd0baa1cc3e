"""Which column of a table is which field: by well-known names in Chinese and English, else by what only one can be."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sartor.base.errors import DataError, did_you_mean
from sartor.base.i18n import Text, tr
from sartor.data.read_rows import available_columns

FIELDS = ("question", "answer", "input", "system", "tools", "chosen", "rejected", "kto_tag", "text")
"""What a column of an imported table can be; `text` is a document without question and answer."""
TABLE = """
question: question questions 问题 提问 问 q prompt instruction instructions query user human ask 问句 指令 题目 题干
question: questiontext questioncontent userquestion userquery userprompt usermessage customerquestion faq 标准问题
question: 标准问 标准问法 问法 客户提问 客户问题 用户提问 用户问题 用户输入 提问内容 问题内容 咨询内容 咨询问题
question: 疑问 请求 提示词 input 输入
answer: answer answers 答案 回答 答 a response responses output outputs completion reply replies assistant gpt bot
answer: target 答复 回复 输出 answertext answercontent botresponse modelanswer modelresponse agentreply solution
answer: 标准答案 标准答复 标准回答 标准回复 参考答案 参考回答 正确答案 回复内容 回答内容 答案内容 答复内容 客服回复
answer: 客服回答 客服答复 人工回复 官方回复 解答 应答 回应 译文
chosen: chosen chosenresponse chosenanswer preferred preferredanswer preferredresponse goodanswer better accepted
chosen: good 优选 优选回答 好回答 好的回答 更好的回答 优质回答 采纳 采纳回答 偏好回答 选中 选中回答
rejected: rejected rejectedresponse rejectedanswer dispreferred bad badanswer worse 拒绝 拒绝回答 差回答 差的回答
rejected: 较差的回答 更差的回答 劣质回答 未采纳 不采纳 落选 落选回答
system: system systemprompt systemmessage 系统 系统提示 系统提示词 系统消息 系统设定
tools: tools 工具
kto_tag: ktotag ktolabel
input: input 输入
text: text content body article document passage 正文 文本 内容 全文 段落 文章
"""
NAMES: Mapping[str, tuple[str, ...]] = {
    field: tuple(name for line in TABLE.splitlines() if line.startswith(f"{field}:") for name in line.split()[1:])
    for field in FIELDS
}
"""Field → the names of its column, without case, white space and punctuation; the first in a row of columns wins."""
WORDS = {
    "question": re.compile(r"提问|问题|询问|咨询|问句|提示词|指令|题干|题目|问法|question|query|prompt|instruction"),
    "answer": re.compile(r"答复|回复|答案|回答|应答|解答|回应|answer|reply|response|completion"),
}
"""Words inside longer names, in lower case."""
ABOUT = re.compile(
    r"类型|类别|分类|编号|序号|时间|日期|来源|数量|次数|状态|标签|标识|长度|评分|得分|人员|人$|者$|渠道|等级|语言|"
    r"id$|type|categor|class|count|number|time|date|source|status|tag|label|length|score|rating|author|lang|url|key|token"
)
"""In a name: the column is about a question or an answer (its type, author, time), not the text itself."""
SIDE = re.compile(r"column \d+|(?:id|index|idx|序号|编号)", re.IGNORECASE)
META = re.compile(
    r"(?:column \d+|id|index|idx|url|link|source|timestamp|date|time|title|meta|metadata|lang|language|author|domain|"
    r"序号|编号|来源|标题|日期|时间|作者|链接|语言)",
    re.IGNORECASE,
)
"""Columns that may stand beside the text of a document."""


def choose_columns(
    names: Sequence[str], given: Mapping[str, str], where: str, sample: Sequence[Mapping[str, Any]] = ()
) -> dict[str, str]:
    """Field → column. Raises: DataError for an unknown one, or where a person must choose (with what is likely)."""
    for field, column in given.items():
        if field not in FIELDS:
            raise DataError("Unknown field {field!r}.", where, did_you_mean(field, FIELDS), field=field)
        if column not in names:
            raise DataError("Unknown column {column!r}.", where, available_columns(column, names), column=column)
    mapping = dict(given)
    if "text" in mapping:
        return mapping
    for field in ("chosen", "rejected", "kto_tag", "system", "tools", "question", "answer", "input"):
        if field not in mapping and (found := _named(field, names, mapping.values())):
            mapping[field] = found
    for field in ("chosen", "rejected"):  # one alone is no preference
        if not {"chosen", "rejected"} <= mapping.keys() and field not in given:
            mapping.pop(field, None)
    needed = ("question", *(("chosen", "rejected") if {"chosen", "rejected"} & mapping.keys() else ("answer",)))
    for field in needed:
        if field in WORDS and field not in mapping and (found := _containing(field, names, mapping.values())):
            mapping[field] = found
    _choose_rest(names, mapping, needed)
    missing = [field for field in needed if field not in mapping]
    if missing == ["question", "answer"] and (text := _document(names)):
        return {"text": text}
    if missing:
        raise _ask(names, mapping, missing, where, sample)
    return mapping


def _choose_rest(names: Sequence[str], mapping: dict[str, str], needed: Sequence[str]) -> None:
    """As many columns left as fields: nothing else can be meant."""
    rest = [name for name in names if name not in mapping.values() and not SIDE.fullmatch(name)]
    missing = [field for field in needed if field not in mapping]
    if missing and len(rest) == len(missing) and not (len(missing) == 2 and _document(names)):
        mapping |= dict(zip(missing, rest, strict=True))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _named(field: str, names: Iterable[str], taken: Iterable[str]) -> str | None:
    taken = set(taken)
    known = {_plain(name): name for name in reversed(list(names)) if name not in taken}
    return next((known[name] for name in NAMES[field] if name in known), None)


def _containing(field: str, names: Iterable[str], taken: Iterable[str]) -> str | None:
    """The only column whose name has a word of the field in it; None if there are several."""
    taken, other = set(taken), WORDS["answer" if field == "question" else "question"]
    found = [
        name
        for name in names
        if name not in taken
        and WORDS[field].search(plain := _plain(name))
        and not ABOUT.search(plain)
        and not other.search(plain)
    ]
    return found[0] if len(found) == 1 else None


def _document(names: Sequence[str]) -> str | None:
    """The column of the text, if all others only say where it is from."""
    text = _named("text", names, ())
    return text if text and all(name == text or META.fullmatch(name) for name in names) else None


def _ask(
    names: Sequence[str],
    mapping: Mapping[str, str],
    missing: Sequence[str],
    where: str,
    sample: Sequence[Mapping[str, Any]],
) -> DataError:
    """The error that asks; with the columns of the longest texts as the likely ones."""
    rest = [name for name in names if name not in mapping.values() and not SIDE.fullmatch(name)]
    lengths = {name: sum(len(str(row.get(name) or "")) for row in sample) for name in rest}
    longest = sorted(sorted(rest, key=lambda name: -lengths[name])[: len(missing)], key=lambda name: lengths[name])
    available = ", ".join(map(repr, names))
    fix = tr("Pass --question COLUMN --answer COLUMN. Available: {available}.", available=available)
    if set(missing) <= {"question", "answer"} and len(longest) == len(missing) and all(lengths[n] for n in longest):
        likely = " ".join(f"--{field} {shlex.quote(column)}" for field, column in zip(missing, longest, strict=True))
        fix = tr(
            "Pass --question COLUMN --answer COLUMN, perhaps {likely}. Available: {available}.",
            likely=likely,
            available=available,
        )
    elif not set(missing) <= {"question", "answer"}:
        fix = tr("Pass --column {field}=COLUMN. Available: {available}.", field=missing[0], available=available)
    return DataError("Could not determine which column is the {field}.", where, fix, field=_shown(missing[0]))


def _shown(field: str) -> Text:
    known = {"question": tr("question"), "answer": tr("answer"), "chosen": tr("better answer")}
    return known.get(field, tr("worse answer"))
