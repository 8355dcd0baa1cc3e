"""Next steps: at most three things to try, each drawn from a figure of this run; none when nothing calls for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sartor.evaluation.verdict import Verdict
from sartor.evaluation.verdict_text import number

MAX_RECOMMENDATIONS = 3
FEW_STEPS = 30
"""Below this many optimizer steps a cosine schedule with warm-up has hardly left the start."""
STILL_FALLING_FRAC = 0.03
"""A last-stretch fall of the held-out loss by 3 % or more is worth another epoch."""
CUT_FRAC = 0.1


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to try, and the figure that says so, in English and Chinese."""

    code: str
    figure: str
    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What the steps are computed from; lists may be empty where the run has no such file."""

    verdict: Verdict | None
    steps: Sequence[tuple[int, float]]
    """(step, training loss)."""
    evals: Sequence[tuple[int, float]]
    """(step, held-out loss)."""
    tuned_answers: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    ledger: Mapping[str, Any]


def recommend(run: RunFigures) -> list[Recommendation]:
    """The most useful first."""
    found: list[Recommendation] = []
    for rule in (
        _worse,
        _cut,
        _past_the_best,
        _too_few_rows,
        _still_falling,
        _few_steps,
        _memorized,
        _forgot,
        _leaks,
        _skipped,
    ):
        found.extend(rule(run))
    return found[:MAX_RECOMMENDATIONS]


def _worse(run: RunFigures) -> Iterator[Recommendation]:
    if run.verdict and run.verdict.outcome == "worse":
        rate = run.settings.get("learning_rate", 5e-5)
        change = number(run.verdict.primary.difference, True)
        yield Recommendation(
            "worse",
            change,
            f"The untuned model is stronger ({run.verdict.primary.metric} {change}). Learn more gently: "
            f"learning_rate: {rate / 5:.0e} instead of {rate:.0e}, and look at what is learned with `sartor show`.",
            f"未微调的模型更强（{run.verdict.primary.metric} {change}）。请降低学习率：learning_rate: {rate / 5:.0e}"
            f"（原为 {rate:.0e}），并用 `sartor show` 检查实际学习的内容。",
        )


def _cut(run: RunFigures) -> Iterator[Recommendation]:
    cut = sum(row.get("stop_reason") == "length" for row in run.tuned_answers)
    total = len(run.tuned_answers)
    if total and cut / total >= CUT_FRAC:
        most = run.settings.get("max_new_tokens", 1024)
        yield Recommendation(
            "cut",
            f"{cut}/{total}",
            f"{cut} of {total} answers were cut at max_new_tokens ({most}). Write max_new_tokens: {2 * int(most)}; "
            "if they still do not end, train longer: the model has not learned to stop.",
            f"{total} 个答案中有 {cut} 个在 max_new_tokens（{most}）处被截断。请改为 max_new_tokens: {2 * int(most)}；"
            "若仍不结束，请延长训练：模型还没有学会停下。",
        )


def _past_the_best(run: RunFigures) -> Iterator[Recommendation]:
    if len(run.evals) < 2:
        return
    best_step, best = min(run.evals, key=lambda pair: pair[1])
    last_step, last = run.evals[-1]
    if last > best * 1.01 and best_step < last_step:
        yield Recommendation(
            "past-best",
            f"{number(best)} → {number(last)}",
            f"Held-out loss was lowest at step {best_step} ({number(best)}) and rose to {number(last)} by step "
            f"{last_step}. Write load_best_model_at_end: true, or train {best_step / last_step:.0%} as long.",
            f"保留数据上的损失在第 {best_step} 步最低（{number(best)}），到第 {last_step} 步升至 {number(last)}。"
            f"请写 load_best_model_at_end: true，或只训练原来的 {best_step / last_step:.0%}。",
        )


def _too_few_rows(run: RunFigures) -> Iterator[Recommendation]:
    d = run.verdict.primary if run.verdict else None
    if d is None or d.outcome != "not_proven" or not d.min_detectable_effect or not d.difference:
        return
    needed = round(d.n * (d.min_detectable_effect / abs(d.difference)) ** 2)
    if d.n < needed <= 100_000:
        yield Recommendation(
            "rows",
            f"{d.n} → {needed}",
            f"{d.n} held-out rows can show a difference of {number(d.min_detectable_effect)}; the one seen is "
            f"{number(abs(d.difference))}. To prove that one, hold out about {needed} rows (val_size: {needed}).",
            f"{d.n} 行保留数据能显示 {number(d.min_detectable_effect)} 的差别，"
            f"而实际看到的是 {number(abs(d.difference))}。"
            f"要证明它，大约需要保留 {needed} 行（val_size: {needed}）。",
        )


def _still_falling(run: RunFigures) -> Iterator[Recommendation]:
    points = run.evals if len(run.evals) >= 2 else _thirds(run.steps)
    if len(points) < 2:
        return
    (before_step, before), (last_step, last) = points[-2], points[-1]
    if before > 0 and (before - last) / before >= STILL_FALLING_FRAC:
        epochs = float(run.settings.get("num_train_epochs", 3.0))
        where = ("held-out loss", "保留数据上的损失") if len(run.evals) >= 2 else ("training loss", "训练损失")
        yield Recommendation(
            "falling",
            f"−{(before - last) / before:.0%}",
            f"The {where[0]} still fell by {(before - last) / before:.0%} ({number(before)} → {number(last)}, steps "
            f"{before_step}–{last_step}). Train longer: num_train_epochs: {2 * epochs:g}.",
            f"{where[1]}仍在下降：第 {before_step}–{last_step} 步下降 {(before - last) / before:.0%}"
            f"（{number(before)} → {number(last)}）。可延长训练：num_train_epochs: {2 * epochs:g}。",
        )


def _few_steps(run: RunFigures) -> Iterator[Recommendation]:
    if run.steps and run.steps[-1][0] < FEW_STEPS:
        steps = run.steps[-1][0]
        batch = int(run.settings.get("per_device_train_batch_size", 8)) * int(
            run.settings.get("gradient_accumulation_steps", 1)
        )
        yield Recommendation(
            "few-steps",
            str(steps),
            f"There were only {steps} optimizer steps of {batch} rows. A smaller batch makes more of them: "
            f"per_device_train_batch_size: {max(1, batch // 2)}, gradient_accumulation_steps: 1.",
            f"只有 {steps} 个优化步，每步 {batch} 行。减小批量可得到更多步："
            f"per_device_train_batch_size: {max(1, batch // 2)}，gradient_accumulation_steps: 1。",
        )


def _memorized(run: RunFigures) -> Iterator[Recommendation]:
    memory = run.verdict.memorization if run.verdict else None
    if memory and memory.found and run.verdict:
        gap, held_out = number(memory.gap), number(run.verdict.primary.gain)
        yield Recommendation(
            "by-heart",
            gap,
            f"Learned rows gained {gap} more than rows it never saw ({held_out}). More rows help most; else fewer "
            "epochs, or lora_dropout: 0.1.",
            f"学过的行比没见过的行（{held_out}）多改善了 {gap}。"
            "最有效的是增加数据；否则减少轮数，或设 lora_dropout: 0.1。",
        )


def _forgot(run: RunFigures) -> Iterator[Recommendation]:
    forgot = run.verdict.forgetting if run.verdict else None
    if forgot and forgot.difference.outcome == "worse":
        d = forgot.difference
        yield Recommendation(
            "forgot",
            f"{number(d.base)} % → {number(d.tuned)} %",
            f"General questions fell from {number(d.base)} % to {number(d.tuned)} % right. Mix in general rows "
            "(a second dataset), or lower the learning rate.",
            f"通用问题的正确率从 {number(d.base)} % 降到 {number(d.tuned)} %。"
            "请混入通用数据（第二个数据集），或降低学习率。",
        )


def _leaks(run: RunFigures) -> Iterator[Recommendation]:
    if run.verdict and run.verdict.leaks:
        count = len(run.verdict.leaks)
        yield Recommendation(
            "leaks",
            str(count),
            f"{count} held-out row{'s are' if count > 1 else ' is'} nearly the same as learned ones. "
            "Delete the doubles, then compare again.",
            f"有 {count} 行保留数据与学过的行几乎相同。请删去重复的行，再比较一次。",
        )


def _skipped(run: RunFigures) -> Iterator[Recommendation]:
    skipped = len(run.ledger.get("skipped", ()))
    if skipped:
        yield Recommendation(
            "skipped",
            str(skipped),
            f"{skipped} of {run.ledger.get('read', 0)} rows were not used; the ledger below has each reason and fix.",
            f"{run.ledger.get('read', 0)} 行中有 {skipped} 行未被使用；下面的账目写明了每一行的原因和修正方法。",
        )


def _thirds(steps: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The mean training loss of the second and of the last third, each at its last step."""
    third = len(steps) // 3
    if third < 3:
        return []
    parts = [steps[-2 * third : -third], steps[-third:]]
    return [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in parts]
