"""The report is one page that loads nothing, escapes everything, and says first what was found."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image

from sartor.base.errors import RunError
from sartor.base.i18n import ntr, tr
from sartor.base.reasons import reason_of
from sartor.base.rundir import RunDir
from sartor.evaluation.difference import LOSS, Measure, compare_rows
from sartor.evaluation.text_diff import diff_words
from sartor.evaluation.verdict import AnswerCounts, Findings, make_verdict
from sartor.evaluation.verdict_text import answers_phrase, answers_sentence, effect_phrase, verdict_sentence
from sartor.reporting import charts
from sartor.reporting.page import answered_rows, read_run, run_figures, score_rows, write_report
from sartor.reporting.recommendations import MAX_RECOMMENDATIONS, RunFigures, recommend
from support.made_up_run import HOSTILE, make_run


class Reader(HTMLParser):
    """Collects tags, links, ids and text; complains about tags that do not close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "poster")]
        if tag not in ("meta", "br", "link", "input", "img", "circle", "line", "rect", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_run(tmp_path_factory.mktemp("runs") / "pride")


@pytest.fixture(scope="module")
def page(run: RunDir) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_loads_nothing_and_is_well_formed(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    assert reader.links == []
    assert "default-src 'none'" in page
    assert re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", page) == []
    assert reader.tags.count("script") == 1
    assert len(page) < 400_000


def test_text_from_data_is_escaped(page: str) -> None:
    assert "<script>alert" not in page
    assert "<b>49</b>" not in page
    assert "{{ 7*7 }}" in Reader(page).text
    assert Reader(page).text.count("alert('x')") >= 4  # question, answers, ledger reason, warning


def test_verdict_comes_first_in_both_languages(run: RunDir, page: str) -> None:
    verdict = read_run(run).verdict
    assert verdict is not None
    text = Reader(page).text
    sentence = verdict_sentence(verdict)
    for said in (sentence, effect_phrase(verdict), answers_phrase(verdict), answers_sentence(verdict.answers)):
        assert said is not None
        assert said.render("en") in text
        assert said.render("zh") in text
    assert "but not shown to be more correct" in text
    assert "4 were cut at 96 tokens" in text
    assert text.index(sentence.render("en")) < text.index("What to try next") < text.index("Scores")
    assert page.count('class="en"') == page.count('class="zh"') > 30


def test_scores_have_scale_meaning_and_interval(run: RunDir, page: str) -> None:
    rows = score_rows(read_run(run))
    assert rows[0].difference.metric == "loss"
    assert [row.difference.metric for row in rows if not row.folded][1:4] == ["exact-match", "token-f1", "rouge-l.word"]
    assert [row.difference.metric for row in rows if not row.folded][-4:] == ["bleu-4", "rouge-1", "rouge-2", "rouge-l"]
    for row in rows:
        assert row.meaning
        assert row.scale.startswith("0–")
        assert "<svg" in row.bar


def test_ledger_adds_up_on_the_page(page: str) -> None:
    text = re.sub(r"\s+", " ", Reader(page).text)
    assert "102 read" in text.replace("读入", "")
    assert "The row has 713 tokens" in text
    assert "pride_qa_en.csv" in text
    assert "3f3f3f3f3f3f3f3f…" in text


def test_texts_of_the_plan_and_the_ledger_are_in_every_language(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    plan, data = run.read_json("plan.json"), run.read_json("data.json")
    plan["reasons"]["total_steps"] = ntr("{count} row", "{count} rows", count=3).to_json()
    plan["ignored_keys"]["overwrite_cache"] = tr("Base").to_json()
    data["ledger"]["skipped"][1]["params"] = {"tokens": "713", "cutoff": "512"}
    run.write_json("plan.json", plan)
    run.write_json("data.json", data)
    page = write_report(run, chart_files=False).read_text(encoding="utf-8")
    reason = reason_of("overlong", {"tokens": "713", "cutoff": "512"})
    for part in ("3 rows", tr("Base").render("zh"), reason.render("en"), reason.render("zh")):
        assert part in Reader(page).text


def test_secrets_and_folders_stay_out(run: RunDir, page: str) -> None:
    assert "judge_api_key" in page
    assert "JUDGE_KEY" not in page
    assert str(run.path.parent) not in page


def test_best_and_worst_rows_come_first(run: RunDir) -> None:
    rows = answered_rows(read_run(run))
    assert len(rows) == 20
    gains = [row.gain for row in rows]
    assert gains[0] == max(gain for gain in gains if gain is not None)
    assert min(gain for gain in gains if gain is not None) in gains[:6]


def test_a_run_without_verdict_or_answers(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "bare")
    run.path.mkdir()
    run.config.write_text("dataset: x\n", encoding="utf-8")
    text = Reader(write_report(run).read_text(encoding="utf-8")).text
    assert "Not compared yet" in text
    assert "尚未比较" in text


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.plan.write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"plan\.json is damaged"):
        write_report(run)


def test_chart_files_are_standalone(run: RunDir, page: str) -> None:
    del page
    for name in ("loss", "verdict", "lengths"):
        svg = (run / "pictures" / f"{name}.svg").read_text(encoding="utf-8")
        assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
        assert "var(" not in svg
        with Image.open(run / "pictures" / f"{name}.png") as png:
            assert png.width == 1440
            assert len(png.convert("RGB").getcolors(1 << 20) or ()) > 8, "drawn, not blank"


def test_out_may_be_elsewhere(run: RunDir, tmp_path: Path) -> None:
    out = write_report(run, tmp_path / "sent.html", chart_files=False)
    assert out == tmp_path / "sent.html"
    assert list(tmp_path.iterdir()) == [out]


def test_diff_spans_join_to_the_text() -> None:
    text, other = "达西先生是彭伯里的主人。He is rich, very rich.", "He was rich, and the 主人 of 彭伯里."
    for one, two in ((text, other), (other, text), ("", "a"), ("a " * 3000, "a"), (HOSTILE, HOSTILE)):
        assert "".join(span.text for span in diff_words(one, two)) == one
    assert [s.text for s in diff_words("He is rich", "he was RICH") if s.shared] == ["He", "rich"]
    assert [s.shared for s in diff_words("a b", "a b")] == [True]
    assert diff_words("one, two", "three, four")[0].shared is False


def test_interval_bar_puts_better_to_the_right() -> None:
    lower = compare_rows([3.0, 3.1, 2.9, 3.2], [2.0, 2.2, 1.9, 2.3], LOSS)
    higher = compare_rows([1.0, 2.0, 3.0, 4.5], [31.0, 32.5, 33.0, 34.0], Measure("rouge-l"))
    for difference in (lower, higher):
        place = float(re.findall(r'circle cx="([\d.]+)"', charts.interval_bar(difference))[0])
        assert place > 90


def test_a_tiny_difference_looks_tiny() -> None:
    """The scale follows the margin: a loss from 3.02 to 3.01 once filled the picture."""
    base = [3.0 + i / 100 for i in range(20)]
    svg = charts.interval_bar(compare_rows(base, [b - 0.01 - 0.001 * (i % 3) for i, b in enumerate(base)], LOSS))
    assert 90 < float(re.findall(r'circle cx="([\d.]+)"', svg)[0]) < 94
    assert float(re.findall(r'width="([\d.]+)" height="7"', svg)[0]) <= 2
    band = re.findall(r'<rect x="([\d.]+)" y="2" width="([\d.]+)" height="18" class="margin"', svg)[0]
    assert float(band[0]) + float(band[1]) / 2 == pytest.approx(90, abs=0.1)
    assert float(band[1]) == pytest.approx(2 * 82 / charts.MARGINS_SHOWN, abs=0.1)


def test_loss_curve_draws_every_point() -> None:
    svg = charts.loss_curve([(1, 3.0), (2, 2.0), (3, 1.5)], [(3, 1.8)])
    raw = re.findall(r'points="([^"]+)" class="raw"', svg)[0].split()
    assert len(raw) == 3
    ys = [float(point.split(",")[1]) for point in raw]
    assert ys == sorted(ys)  # falling loss goes down the page
    assert svg.count("<circle") == 1
    assert charts.loss_curve([(1, 3.0)], []) == ""


def made_figures(**changes: object) -> RunFigures:
    values: dict[str, object] = {
        "verdict": None,
        "steps": [(s, 2.0) for s in range(1, 61)],
        "evals": [],
        "settings": {},
        "ledger": {},
    }
    return RunFigures(**{**values, **changes})  # type: ignore[arg-type]


def cut_answers(cut: int, rows: int) -> AnswerCounts:
    return AnswerCounts(rows, exact=(0, 0), cut=(rows, cut), empty=(0, 0), limit=96)


def codes(**changes: object) -> list[str]:
    return [step.code for step in recommend(made_figures(**changes))]


def test_recommendations_come_from_figures() -> None:
    clear = compare_rows([3.0, 3.2, 3.1, 3.0, 2.9, 3.3] * 2, [2.0, 2.1, 2.2, 1.9, 2.0, 2.1] * 2, LOSS)
    weak = compare_rows([3.0, 2.5, 3.5, 2.0, 2.8], [2.9, 2.7, 3.2, 2.1, 2.6], LOSS)
    worse = compare_rows([2.0, 2.1, 2.2, 1.9, 2.0, 2.1] * 2, [3.0, 3.2, 3.1, 3.0, 2.9, 3.3] * 2, LOSS)
    assert codes() == []
    assert codes(verdict=make_verdict(Findings(clear, answers=cut_answers(3, 12)))) == ["cut"]
    assert codes(verdict=make_verdict(Findings(clear, answers=cut_answers(1, 12)))) == []
    assert codes(evals=[(10, 2.5), (20, 2.2)]) == ["falling"]
    assert codes(evals=[(10, 2.5), (20, 2.49)]) == []
    assert codes(evals=[(10, 2.2), (20, 2.5)]) == ["past-best"]
    assert codes(steps=[(s, 2.0) for s in range(1, 11)]) == ["few-steps"]
    assert codes(steps=[(s, 5.0 - s / 20) for s in range(1, 61)]) == ["falling"]
    assert codes(verdict=make_verdict(Findings(weak))) == ["rows"]
    assert codes(verdict=make_verdict(Findings(worse))) == ["worse"]
    assert codes(ledger={"read": 10, "skipped": [{}]}) == ["skipped"]
    everything = codes(
        verdict=make_verdict(Findings(worse, answers=cut_answers(3, 12))),
        evals=[(10, 2.2), (20, 2.5)],
        ledger={"skipped": [{}]},
    )
    assert everything == ["worse", "cut", "past-best"]
    assert len(everything) == MAX_RECOMMENDATIONS


def test_each_recommendation_has_its_figure(run: RunDir) -> None:
    for step in recommend(run_figures(read_run(run))):
        assert step.figure
        assert str(step.text)
    primary = compare_rows([3.0, 3.2, 3.1, 3.0, 2.9, 3.3] * 2, [2.0, 2.1, 2.2, 1.9, 2.0, 2.1] * 2, LOSS)
    found = make_verdict(Findings(primary, answers=cut_answers(4, 12)))
    cut = recommend(made_figures(verdict=found, settings={"max_new_tokens": 1024}))[0]
    assert cut.figure == "4/12"
    for language in ("en", "zh"):  # the limit that the answers had, not a setting of the training
        assert "96" in cut.text.render(language)
        assert "max_new_tokens=192" in cut.text.render(language)


def test_rows_needed_to_prove_what_was_seen() -> None:
    weak = compare_rows([3.0, 2.5, 3.5, 2.0, 2.8], [2.9, 2.6, 3.2, 2.0, 2.5], LOSS)
    assert weak.min_detectable_effect is not None
    beyond = (weak.min_detectable_effect - weak.margin) / (abs(weak.difference) - weak.margin)
    needed = round(5 * beyond**2)
    step = recommend(made_figures(verdict=make_verdict(Findings(weak))))[0]
    assert step.figure == f"5 → {needed}"
    assert json.dumps(step.text.to_json())


@pytest.mark.parametrize(
    ("planned", "given", "shown"),
    [
        ("org/default", None, "org/default"),
        ("/home/me/models/mine", "mine-too", "mine"),
        (None, "org/given", "org/given"),
    ],
)
def test_the_header_names_the_model_that_was_trained(
    tmp_path: Path, planned: str | None, given: str | None, shown: str
) -> None:
    run = make_run(tmp_path / "run")
    settings = {"dataset": "pride_en"} | ({"model_name_or_path": given} if given else {})
    run.config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    run.write_json("plan.json", {"model_name_or_path": planned} if planned else {})
    page = write_report(run, chart_files=False).read_text(encoding="utf-8")
    header = Reader(page[page.index("<header>") : page.index("</header>")]).text
    assert f"{shown} · pride_en" in header
