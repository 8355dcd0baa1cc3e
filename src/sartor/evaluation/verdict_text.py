"""Plain words for a verdict, in English and Chinese, for the terminal and the report; it computes nothing new."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sartor.evaluation.verdict import Difference, Verdict

OUTCOMES = {
    "en": {"better": "Better", "worse": "Worse", "not_proven": "Not proven"},
    "zh": {"better": "变好了", "worse": "变差了", "not_proven": "尚未证明"},
}
_COLOUR = {"better": "green", "worse": "red", "not_proven": "yellow"}


def number(value: float | None, signed: bool = False) -> str:
    """A number with as many digits as are worth reading; `–` where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


def p_value(p: float) -> str:
    """`p < 0.001`, `p = 0.032`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def interval(difference: Difference) -> str:
    """`−0.61 … −0.18`."""
    if difference.low is None:
        return "–"
    return f"{number(difference.low, True)} … {number(difference.high, True)}"


def verdict_sentence(verdict: Verdict, lang: str) -> str:
    """The answer to "is the tuned model better?" with its interval; never without it."""
    d = verdict.primary
    names = {"en": {"loss": "loss per reference token"}, "zh": {"loss": "每个参考 token 的损失"}}[lang]
    metric = names.get(d.metric, d.metric)
    values = {
        "metric": metric,
        "base": number(d.base),
        "tuned": number(d.tuned),
        "n": d.n,
        "p": p_value(d.p),
        "low": number(d.low, True),
        "high": number(d.high, True),
        "difference": number(d.difference, True),
        "detectable": number(d.min_detectable_effect),
        "improved": d.improved,
    }
    if d.low is None:
        return _TOO_FEW[lang].format_map(values)
    return _SENTENCES[lang][verdict.outcome].format_map(values)


_SENTENCES = {
    "en": {
        "better": (
            "The tuned model is better on rows it never saw: {metric} went from {base} to {tuned} "
            "({difference}; 95 % interval {low} to {high}; {p}; {n} rows, {improved} of them improved)."
        ),
        "worse": (
            "The tuned model is worse on rows it never saw: {metric} went from {base} to {tuned} "
            "({difference}; 95 % interval {low} to {high}; {p}; {n} rows, {improved} of them improved)."
        ),
        "not_proven": (
            "It is not proven that the tuned model differs: {metric} went from {base} to {tuned} "
            "({difference}; 95 % interval {low} to {high}, which includes zero; {p}). "
            "{n} rows would show a difference of {detectable} four times out of five."
        ),
    },
    "zh": {
        "better": (
            "在没有见过的行上，微调后的模型更好：{metric}从 {base} 变为 {tuned}"
            "（{difference}；95 % 区间 {low} 至 {high}；{p}；共 {n} 行，其中 {improved} 行变好）。"
        ),
        "worse": (
            "在没有见过的行上，微调后的模型更差：{metric}从 {base} 变为 {tuned}"
            "（{difference}；95 % 区间 {low} 至 {high}；{p}；共 {n} 行，其中 {improved} 行变好）。"
        ),
        "not_proven": (
            "尚未证明微调前后有差别：{metric}从 {base} 变为 {tuned}"
            "（{difference}；95 % 区间 {low} 至 {high}，包含零；{p}）。"
            "{n} 行数据在五次中有四次能显示 {detectable} 的差别。"
        ),
    },
}
_TOO_FEW = {
    "en": "Nothing can be proven with {n} held-out row(s): {metric} went from {base} to {tuned}. Hold out more rows.",
    "zh": "只有 {n} 行保留数据，无法证明任何结论：{metric}从 {base} 变为 {tuned}。请保留更多的行。",
}


def verdict_panel(verdict: Verdict) -> RenderableType:
    """The sentence in a frame, then each difference with its interval, then what the probes found."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from sartor.base.i18n import language

    lang = language()
    colour = _COLOUR[verdict.outcome]
    head = Panel(
        Text(verdict.sentence(lang)), title=f"[bold {colour}]{OUTCOMES[lang][verdict.outcome]}[/]", border_style=colour
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "base", "tuned", "difference", "95 % interval", "p", "rows"):
        table.add_column(column, justify="left" if not column else "right")
    for d in (verdict.primary, *verdict.others):
        style = _COLOUR[d.outcome] if d.outcome != "not_proven" else ""
        mark = " ◂ decides" if d is verdict.primary else ""
        p = p_value(d.p if d.p_holm is None else d.p_holm).removeprefix("p ").removeprefix("= ")
        table.add_row(
            d.metric + mark,
            number(d.base),
            number(d.tuned),
            f"[{style}]{number(d.difference, True)}[/]" if style else number(d.difference, True),
            interval(d),
            p,
            str(d.n),
        )
    return Group(head, table, *(Text(line, style="dim") for line in remarks(verdict, lang)))


def remarks(verdict: Verdict, lang: str = "en") -> list[str]:
    """What the probes found, one sentence each."""
    zh = lang == "zh"
    lines = []
    if memory := verdict.memorization:
        ends = "" if memory.low is None else f"{number(memory.low, True)} … {number(memory.high, True)}"
        gap, metric = number(memory.gap, True), memory.train_rows.metric
        if zh:
            found = "超出偶然：有一部分是背下来的" if memory.found else "没有超出偶然"
            lines.append(f"学过的行比保留的行在 {metric} 上多改善 {gap}（95 % 区间 {ends or '–'}）：{found}。")
        else:
            found = "more than chance explains: in part learned by heart" if memory.found else "no more than chance"
            between = f" (95 % interval {ends})" if ends else ""
            lines.append(f"Learned rows gained {gap} more than held-out rows in {metric}{between}: {found}.")
    if forgot := verdict.forgetting:
        d, lost, gained = forgot.difference, len(forgot.lost), len(forgot.gained)
        before, after, p = number(d.base), number(d.tuned), p_value(d.p)
        lines.append(
            f"通用问题：微调前答对 {before} %，微调后 {after} %（{d.n} 题中丢失 {lost}，新增 {gained}；{p}）。"
            if zh
            else f"General questions: {before} % right before, {after} % after "
            f"({lost} lost, {gained} gained of {d.n}; {p})."
        )
    if verdict.judge and "counts" in verdict.judge:
        lines.append(_judged(verdict.judge, zh))
    if count := len(verdict.leaks):
        lines.append(
            f"有 {count} 行保留数据与学过的行几乎相同，其分数反映的是记忆。"
            if zh
            else f"{count} held-out rows are nearly the same as learned ones; their scores show memory."
            if count > 1
            else "1 held-out row is nearly the same as a learned one; its score shows memory."
        )
    if s := verdict.spread:
        low, high, mean, sd = number(s.low, True), number(s.high, True), number(s.mean, True), number(s.sd)
        lines.append(
            f"用其他种子训练 {len(s.differences)} 次：{low} … {high}，平均 {mean}，标准差 {sd}。"
            if zh
            else f"{len(s.differences)} trainings with other seeds: {low} … {high}, mean {mean}, "
            f"standard deviation {sd}."
        )
    lines.append(
        "区间反映的是行的选取，不反映训练的随机种子。"
        if zh
        else "The interval covers the choice of rows, not the seed of the training."
    )
    if verdict.primary.remark:
        lines.append(verdict.primary.remark)
    return lines + list(verdict.notes)


def _judged(judge: Mapping[str, Any], zh: bool) -> str:
    better, worse, tie, failed, swayed = (
        judge["counts"][name] for name in ("tuned", "base", "tie", "failed", "swayed_by_order")
    )
    agreement = judge.get("agreement")
    if zh:
        people = "" if agreement is None else f"；与人工标注一致 {agreement:.0%}"
        order = f"（其中 {swayed} 次随顺序改变）" if swayed else ""
        return f"评判模型：微调后胜 {better}，原模型胜 {worse}，平 {tie}{order}，失败 {failed}{people}。"
    people = "" if agreement is None else f"; agrees with people on {agreement:.0%}"
    order = f" ({swayed} by the order alone)" if swayed else ""
    return f"Judge: {better} answers better, {worse} worse, {tie} tied{order}, {failed} failed{people}."
