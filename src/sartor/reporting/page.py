"""The report: one self-contained HTML page about a run, made from the run's files alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from sartor.base import i18n
from sartor.base.config import SECRET_KEY
from sartor.base.files import atomic_write
from sartor.base.i18n import Text, tr
from sartor.base.reasons import REASONS, fix_of, reason_of
from sartor.base.rundir import RunDir, read_json_lines
from sartor.evaluation import metrics, verdict_text
from sartor.evaluation.difference import Difference
from sartor.evaluation.metrics import LLAMA_FACTORY
from sartor.evaluation.numbers import interval, number, p_value
from sartor.evaluation.text_diff import DiffSpan, diff_words
from sartor.evaluation.verdict import Verdict
from sartor.reporting import charts
from sartor.reporting.recommendations import RunFigures, recommend

OPEN_ROWS = 6
"""Rows shown unfolded: the most improved and the most worsened; the others are folded."""
MAX_ROWS = 300
"""More rows would make the page slow on a phone; the files have them all."""
MAX_SKIPPED = 200
LANGUAGE_NAME = tr("English")
"""A language's own name, for the button: its translation into Chinese is 中文."""


@dataclass(frozen=True, slots=True)
class AnsweredRow:
    """One row's question, the reference and both answers as diff spans; `gain` is positive when tuned is better."""

    id: str
    question: str
    base: list[DiffSpan]
    tuned: list[DiffSpan]
    reference: list[DiffSpan]
    gain: float | None
    base_score: float | None
    tuned_score: float | None
    cut: bool
    seen: bool


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The contents of a run's files; empty where a file is missing."""

    settings: Mapping[str, Any]
    plan: Mapping[str, Any]
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    results: Mapping[str, Any]
    steps: Sequence[tuple[int, float]]
    evals: Sequence[tuple[int, float]]
    warnings: Sequence[str]
    answers: Mapping[str, Sequence[Mapping[str, Any]]]
    """`base-held_out`, `tuned-held_out`, `base-train`, `tuned-train` → rows."""
    verdict: Verdict | None


def write_report(run: RunDir, out: Path | None = None, *, chart_files: bool = True) -> Path:
    """Write `report.html` (or `out`), and its charts as SVG and PNG in `pictures/` beside it; returns the page's path.

    Raises: RunError when a file of the run is damaged, or the disk is full.
    """
    files = read_run(run)
    target = out or run.report
    ledger = files.data.get("ledger", {})
    page = _template().render(
        name=run.name,
        files=files,
        charts=render_charts(files, i18n.LANGUAGES),
        lang=i18n.language(),
        languages=i18n.LANGUAGES,
        theme_label=tr("Switch between light and dark"),
        language_names=[LANGUAGE_NAME.render(lang) for lang in i18n.LANGUAGES],
        style=charts.STYLE,
        effect=verdict_text.effect_phrase(files.verdict) if files.verdict else None,
        of_answers=verdict_text.answers_phrase(files.verdict) if files.verdict else None,
        sentence=verdict_text.verdict_sentence(files.verdict) if files.verdict else None,
        answers=verdict_text.answers_sentence(files.verdict.answers) if files.verdict else None,
        remarks=verdict_text.remarks(files.verdict) if files.verdict else (),
        recommendations=recommend(run_figures(files)),
        scores=score_rows(files),
        ledger=ledger,
        skipped=[_with_texts(skipped) for skipped in ledger.get("skipped", ())],
        rows=answered_rows(files),
        open_rows=OPEN_ROWS,
        max_rows=MAX_ROWS,
        max_skipped=MAX_SKIPPED,
        settings=_shown_settings(files.settings),
        data_files=_data_files(files.data),
        key_figures=key_figures(files),
        model=_model_name(files),
    )
    atomic_write(target, page)
    if chart_files:
        with i18n.shown_in("en"):  # the font of the PNG has no Chinese
            single_language = render_charts(files, ("en",))
        for name, svg in single_language.items():
            if svg:
                alone = charts.standalone_svg(svg)
                atomic_write(target.parent / "pictures" / f"{name}.svg", alone)
                atomic_write(target.parent / "pictures" / f"{name}.png", charts.as_png(alone))
    return target


def read_run(run: RunDir) -> RunFiles:
    """The files that exist. Raises: RunError when one of them is damaged."""
    events = list(run.read_events())

    def optional(name: str) -> Mapping[str, Any]:
        return run.read_json(name) if (run / name).exists() else {}

    answers = {
        folder.name: list(read_json_lines(folder / "generated_predictions.jsonl"))
        for folder in sorted(run.predictions.glob("*"))
        if folder.is_dir()
    }
    settings = yaml.safe_load(run.config.read_text(encoding="utf-8")) if run.config.exists() else {}
    return RunFiles(
        settings=settings or {},
        plan=optional("plan.json"),
        data=optional("data.json"),
        environment=optional("env.json"),
        results=optional("all_results.json"),
        steps=[(e["step"], e["loss"]) for e in events if e["kind"] == "step"],
        evals=[(e["step"], e["eval_loss"]) for e in events if e["kind"] == "eval"],
        warnings=list(
            dict.fromkeys(str(Text.from_json(e.get("message") or e["text"])) for e in events if e["kind"] == "warning")
        ),
        answers=answers,
        verdict=Verdict.from_json(optional("verdict.json")) if run.verdict.exists() else None,
    )


def run_figures(files: RunFiles) -> RunFigures:
    """What the recommendations are based on."""
    return RunFigures(
        files.verdict,
        files.steps,
        files.evals,
        files.settings,
        files.data.get("ledger", {}),
    )


def render_charts(files: RunFiles, languages: Sequence[str]) -> dict[str, str]:
    """The page's charts by name, labeled in each language; an empty text where there is nothing to draw."""
    held_out = {who: files.answers.get(f"{who}-held_out", ()) for who in ("base", "tuned")}
    tokens = {who: [int(row["tokens"]) for row in rows if "tokens" in row] for who, rows in held_out.items()}
    return {
        "loss": charts.loss_curve(files.steps, files.evals, languages),
        "verdict": charts.interval_bar(files.verdict.primary, wide=True) if files.verdict else "",
        "lengths": charts.length_dots([(tr("base"), tokens["base"]), (tr("tuned"), tokens["tuned"])], languages),
    }


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One metric's line: its difference, its range, what it means, and its interval as a chart."""

    difference: Difference
    scale: str
    direction: str
    meaning: Text
    signature: str
    bar: str
    folded: bool


SHOWN = ("exact-match", "token-f1", "rouge-l", "bleu-4")
"""The corrected metrics in the order shown; their variants for the other unit are folded."""


def score_rows(files: RunFiles) -> list[ScoreRow]:
    """The primary metric first, then the corrected ones, then LLaMA-Factory's four; then the folded variants."""
    if files.verdict is None:
        return []
    known = {metric.name: metric for metric in metrics.find(["all"])}
    references = [str(row.get("label") or "") for row in files.answers.get("tuned-held_out", ())]
    unit = ".char" if metrics.mostly_chinese(references) else ".word"
    order = {name: place for place, name in enumerate([*SHOWN, *(name + unit for name in SHOWN), *LLAMA_FACTORY])}
    order = {name: place + 100 * (name in LLAMA_FACTORY) for name, place in order.items()}
    found = []
    for difference in files.verdict.others:
        metric = known.get(difference.metric)
        place = order.get(difference.metric, 1000 if metric else 50)
        found.append((place, _score_row(difference, metric, folded=place == 1000)))
    primary = files.verdict.primary
    ordered = [row for _, row in sorted(found, key=lambda pair: pair[0])]
    return [_score_row(primary, known.get(primary.metric), folded=False), *ordered]


def _score_row(difference: Difference, metric: metrics.Metric | None, *, folded: bool) -> ScoreRow:
    low, high = metric.range if metric else (float("-inf"), float("inf"))
    ends = (f"{low:g}" if low > float("-inf") else "−∞", f"{high:g}" if high < float("inf") else "∞")
    return ScoreRow(
        difference,
        f"{ends[0]}–{ends[1]}",
        "↑" if difference.higher_is_better else "↓",
        metric.meaning if metric else Text(""),
        metric.signature if metric else difference.method,
        charts.interval_bar(difference),
        folded,
    )


def answered_rows(files: RunFiles) -> list[AnsweredRow]:
    """Held-out rows with both answers: the most improved and the most worsened alternate first, then file order."""
    base = {row.get("id"): row for row in files.answers.get("base-held_out", ())}
    rows = [_answered(base.get(row.get("id"), {}), row) for row in files.answers.get("tuned-held_out", ())]
    judged = sorted((row for row in rows if row.gain is not None), key=lambda row: row.gain or 0.0)
    worst = [row for row in judged if (row.gain or 0) < 0][: OPEN_ROWS // 2]
    best = [row for row in reversed(judged) if (row.gain or 0) > 0][: OPEN_ROWS - len(worst)]
    first = {row.id for row in (*best, *worst)}
    return [*best, *worst, *(row for row in rows if row.id not in first)][:MAX_ROWS]


def _answered(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> AnsweredRow:
    reference = str(tuned.get("label") or "")
    texts = {who: str(row.get("predict") or "") for who, row in (("base", base), ("tuned", tuned))}
    before, after, sign = _row_scores(base, tuned)
    return AnsweredRow(
        id=str(tuned.get("id", "")),
        question=str(tuned.get("question") or tuned.get("prompt") or ""),
        base=diff_words(texts["base"], reference),
        tuned=diff_words(texts["tuned"], reference),
        reference=diff_words(reference, texts["tuned"]),
        gain=None if before is None or after is None else sign * (after - before),
        base_score=before,
        tuned_score=after,
        cut=tuned.get("stop_reason") == "length",
        seen=bool(tuned.get("seen_in_training")),
    )


def _row_scores(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> tuple[float | None, float | None, float]:
    """The row's loss where it was measured, else its ROUGE-L on words; and which direction is better."""
    if base.get("loss") is not None and tuned.get("loss") is not None:
        return float(base["loss"]), float(tuned["loss"]), -1.0
    scores = [(row.get("scores") or {}).get("rouge-l.word") for row in (base, tuned)]
    return (*(None if score is None else float(score) for score in scores), 1.0)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One of the numbers at the top of the page."""

    value: str
    unit: str
    label: Text


def key_figures(files: RunFiles) -> list[KeyFigure]:
    """Rows, steps, time, speed and memory, as far as the run's files have them."""
    ledger, results, found = files.data.get("ledger", {}), files.results, []
    if ledger:
        found.append(KeyFigure(f"{ledger.get('training', 0):,}", "", tr("training rows")))
        found.append(KeyFigure(f"{ledger.get('held_out', 0):,}", "", tr("held-out rows")))
    if files.steps:
        found.append(KeyFigure(f"{files.steps[-1][0]:,}", "", tr("optimizer steps")))
    if seconds := results.get("train_runtime"):
        value, unit = (f"{seconds / 60:.1f}", "min") if seconds >= 90 else (f"{seconds:.0f}", "s")
        found.append(KeyFigure(value, unit, tr("training time")))
    if speed := results.get("train_tokens_per_second"):
        found.append(KeyFigure(f"{speed:,.0f}", "/s", tr("tokens")))
    if memory := results.get("peak_memory_bytes"):
        found.append(KeyFigure(f"{memory / 2**30:.1f}", "GiB", tr("peak memory")))
    return found


def _model_name(files: RunFiles) -> str:
    """The model that was trained: the plan's, which names the default, too. Of a folder only the last part."""
    name = str(files.plan.get("model_name_or_path") or files.settings.get("model_name_or_path") or "")
    return Path(name).name if Path(name).is_absolute() else name


def _data_files(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The files of the datasets, by name only: a report is passed on, the folders stay private."""
    files = []
    for dataset in data.get("datasets", ()):
        files.extend(dataset.get("files", [dataset]))
    return [{**file, "path": Path(str(file.get("path", ""))).name} for file in files]


def _with_texts(skipped: Mapping[str, Any]) -> Mapping[str, Any]:
    """A skipped row of data.json, its reason and fix in every language where its code is known."""
    code, params = str(skipped.get("code", "")), skipped.get("params")
    if code in REASONS and params is not None:
        return {**skipped, "reason": reason_of(code, params), "fix": fix_of(code, params)}
    return skipped


def _shown_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(key): "***"
        if SECRET_KEY.search(str(key)) and value
        else yaml.safe_dump(value, allow_unicode=True, default_flow_style=True).removesuffix("...\n").strip()
        for key, value in settings.items()
    }


def _in_every_language(message: str | Mapping[str, Any] | Text, **params: Any) -> Markup:
    """A message (as it is kept in files, too) as one span for each language, of which the page's style shows one."""
    text = Text(message, params) if isinstance(message, str) else message
    if not isinstance(text, Text):
        text = Text.from_json(text)
    spans = (
        Markup('<span class="{0}" lang="{0}">{1}</span>').format(lang, text.render(lang)) for lang in i18n.LANGUAGES
    )
    return Markup("").join(spans)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["svg"] = Markup  # our own drawings and styles only; everything else is escaped
    environment.globals.update(t=_in_every_language, number=number, interval=interval, p_value=p_value)
    environment.globals["metric_name"] = verdict_text.metric_name
    return environment.from_string(resources.files(__package__).joinpath("report.html.jinja").read_text("utf-8"))
