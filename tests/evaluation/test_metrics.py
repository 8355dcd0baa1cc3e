"""The metrics give the digits of LLaMA-Factory, of sacrebleu, and of their own examples."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import sacrebleu

from sartor.base.errors import ConfigError, DataError
from sartor.evaluation import metrics
from sartor.evaluation.metrics import (
    LLAMA_FACTORY,
    METRICS,
    CorpusMetric,
    LossMetric,
    Metric,
    PairMetric,
    _ngrams,
)
from sartor.evaluation.metrics._words import content_characters, content_words, jieba_words
from sartor.evaluation.score import Scorer, score, score_file, score_json
from support import metric_oracles as oracles

REFERENCE = Path(__file__).parent / "llama_factory_values.json"


@pytest.mark.parametrize("metric", list(METRICS.all()), ids=lambda metric: metric.name)
def test_examples_of_each_metric(metric: Metric) -> None:
    found: list[tuple[float, float]] = []
    match metric:
        case PairMetric():
            found = [(metric.score(one, other), value) for one, other, value in metric.examples]
        case CorpusMetric():
            found = [(metric.score([one], [other]), value) for one, other, value in metric.examples]
        case LossMetric():
            found = [(metric.score(sums, tokens)[0], value) for sums, tokens, value in metric.examples]
    assert found
    assert metric.meaning
    for number, value in found:
        assert number == pytest.approx(value, abs=1e-9)
        assert metric.range[0] <= number <= metric.range[1]


def test_the_metrics_and_their_signatures_are_the_documented_ones() -> None:
    """A number is comparable with an older one by its name and signature, so neither may change unnoticed."""
    names = [metric.name for metric in metrics.find(["all"])]
    assert names == [*LLAMA_FACTORY, *sorted(set(names) - set(LLAMA_FACTORY))]
    units = {f"{name}.{unit}" for name in LLAMA_FACTORY for unit in ("char", "word")}
    assert set(names) == {
        *LLAMA_FACTORY,
        *units,
        *("bleu", "chrf", "exact-match", "token-f1", "loss", "perplexity"),
    }
    signatures = [metric.signature for metric in metrics.find(["all"]) if not isinstance(metric, CorpusMetric)]
    assert len(set(signatures)) == len(signatures)
    assert METRICS.get("rouge-l.word").signature == "rougeL|word|f|lcs|mean-of-rows|sartor-2"


def test_segmentation_equals_jieba_on_generated_texts(trials: int) -> None:
    source = random.Random(7)
    for _ in range(500 * trials):
        text = oracles.random_text(source)
        assert list(jieba_words(text)) == oracles.words(text)


def test_llama_factory_digits_equal_the_libraries(trials: int) -> None:
    source = random.Random(11)
    pairs = oracles.PAIRS + [oracles.random_pair(source) for _ in range(100 * trials)]
    scores = score([p for p, _ in pairs], [r for _, r in pairs], LLAMA_FACTORY)
    for number, pair in enumerate(pairs):
        wanted = oracles.llama_factory(*pair)
        assert {name: scores[name].per_row[number] for name in LLAMA_FACTORY} == wanted, pair
    for name in LLAMA_FACTORY:
        assert scores[name].signature.endswith("lf-0.9.5")


def test_llama_factory_digits_equal_the_committed_values() -> None:
    """Holds also where the libraries change."""
    rows = json.loads(REFERENCE.read_text(encoding="utf-8"))
    assert len(rows) == len(oracles.PAIRS)
    for row in rows:
        scores = score([row["prediction"]], [row["reference"]], LLAMA_FACTORY)
        assert {name: scores[name].value for name in LLAMA_FACTORY} == {name: row[name] for name in LLAMA_FACTORY}


def test_corrected_bleu_equals_sacrebleu_sentence_bleu() -> None:
    source = random.Random(3)
    for prediction, reference in oracles.PAIRS + [oracles.random_pair(source) for _ in range(200)]:
        for name, cut in (("bleu-4.char", content_characters), ("bleu-4.word", content_words)):
            one, other = (" ".join(cut(metrics.clean(text))) for text in (prediction, reference))
            if not one or not other:
                continue
            wanted = sacrebleu.sentence_bleu(one, [other], tokenize="none").score
            got = score([prediction], [reference], [name])[name].value
            assert got == pytest.approx(wanted, abs=1e-9), (name, prediction, reference)


def test_sacrebleu_names_what_it_did() -> None:
    zh = score(["达西先生很骄傲"], ["达西先生起初很傲慢"], ["bleu", "chrf"])
    en = score(["Darcy is proud"], ["Mr. Darcy seems proud"], ["bleu", "chrf"])
    assert "tok:zh" in zh["bleu"].signature
    assert "tok:13a" in en["bleu"].signature
    assert zh["bleu"].value == pytest.approx(
        sacrebleu.corpus_bleu(["达西先生很骄傲"], [["达西先生起初很傲慢"]], tokenize="zh").score
    )
    assert en["chrf"].value == pytest.approx(
        sacrebleu.corpus_chrf(["Darcy is proud"], [["Mr. Darcy seems proud"]]).score
    )
    assert "nc:6" in en["chrf"].signature


def test_more_distinct_items_than_packing_holds() -> None:
    one = "".join(chr(c) for c in range(0x4E00, 0x4E00 + 40_000) if not 0xD800 <= c < 0xE000)
    assert _ngrams.overlap(one, one[::-1]).shared == (len(one), 0, 0, 0)
    assert _ngrams.overlap(one, one).shared == tuple(len(one) - n for n in range(4))


@pytest.mark.parametrize("text", ["", " \n", "😀" * 50, "啊" * 100_000, "ab " * 33_334])
def test_extreme_answers_are_scored(text: str) -> None:
    reference = "伊丽莎白有四个姐妹。"
    for name, found in score([text], [reference]).items():
        assert found.range[0] <= found.value <= found.range[1], name
        assert found.n == 1
    if not text.strip():
        assert all(found.value == 0 for found in score([text], [reference]).values())


def test_cleaning_touches_only_the_corrected_ones() -> None:
    prediction, reference = "<think>\n想一想\n</think>\n\n彭伯里。", "彭伯里。\n"
    scores = score([prediction], [reference])
    assert scores["exact-match"].value == scores["bleu-4.char"].value == 100
    assert scores["bleu-4"].value == oracles.llama_factory(prediction, reference)["bleu-4"] < 50


@pytest.mark.parametrize("written", ["<s>", "</s>", "<pad>", "<unk>", "<|im_end|>", "<|endoftext|>", "<end_of_turn>"])
def test_what_looks_like_a_control_token_was_written(written: str) -> None:
    """Control tokens are never decoded into an answer: such text is part of it, and not what was asked for."""
    for prediction, reference in ((f"yes{written}", "yes"), ("yes", f"{written}yes"), (f"a {written} b", "a b")):
        scores = score([prediction], [reference])
        assert scores["exact-match"].value == 0
        assert scores["rouge-l.char"].value < 100
    assert score([f"a {written} b"], [f"a {written} b"])["exact-match"].value == 100
    assert score([""], [written])["exact-match"].n == 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_metric_that_gives_no_number_is_a_finding(tmp_path: Path, value: str) -> None:
    (tmp_path / "odd.py").write_text(
        f"def score(prediction, reference):\n    return float('{value}') if prediction == 'b' else 1.0\n", "utf-8"
    )
    found = score(["a", "b", "c", "d"], ["a", "b", None, "d"], [str(tmp_path / "odd.py")])["odd"]
    assert (found.value, found.n, found.left_out, found.failed) == (1.0, 2, 1, (2,))
    assert json.loads(json.dumps(score_json(found), allow_nan=False))["failed"] == [2]


def test_missing_references_are_left_out_and_counted() -> None:
    scores = score(["a", "b", "c"], ["a", None, " "])
    exact, rouge = scores["exact-match"], scores["rouge-1"]
    assert (exact.n, exact.left_out, exact.value) == (1, 2, 100.0)
    assert (rouge.n, rouge.left_out, rouge.value) == (2, 1, 50.0)  # LLaMA-Factory scores a blank reference 0
    assert [math.isnan(value) for value in exact.per_row] == [False, True, True]
    assert scores["bleu"].left_out == 2


def test_scoring_nothing_gives_nan() -> None:
    assert math.isnan(score([], [])["bleu"].value)
    assert score(["a"], [None])["rouge-l"].n == 0
    with pytest.raises(ValueError, match="2 predictions"):
        score(["a", "b"], ["a"])


def test_row_by_row_gives_the_same_as_all_at_once() -> None:
    pairs = oracles.PAIRS[:12]
    scoring = Scorer()
    rows = [scoring.add(*pair) for pair in pairs]
    resumed = Scorer()
    assert all(resumed.add_scored(*pair, row) for pair, row in zip(pairs, rows))
    everything = score([p for p, _ in pairs], [r for _, r in pairs])
    for result in (scoring.result(), resumed.result()):
        assert repr(result) == repr(everything)  # repr: NaN equals NaN
    assert not Scorer(["rouge-1"]).add_scored("a", "a", {"rouge-2": 1.0})


def test_processes_share_the_work_and_change_nothing() -> None:
    pairs = oracles.PAIRS[:20]
    texts = [p for p, _ in pairs], [r for _, r in pairs]
    shared, alone = (score(*texts, ["rouge-l", "exact-match"], workers=workers) for workers in (2, 1))
    assert repr(shared) == repr(alone)


def test_losses() -> None:
    loss, perplexity = (METRICS.get(name) for name in ("loss", "perplexity"))
    assert isinstance(loss, LossMetric)
    assert isinstance(perplexity, LossMetric)
    assert loss.score([2.0, 9.0], [1, 3]) == (2.5, (2.0, 3.0))
    assert perplexity.score([2.0, 9.0], [1, 3])[0] == pytest.approx(math.exp(11 / 4))
    assert not loss.higher_is_better


def test_a_metric_from_a_users_file(tmp_path: Path) -> None:
    file = tmp_path / "politeness.py"
    file.write_text(
        "RANGE = (0, 1)\ndef score(prediction, reference):\n    return float('请' in prediction)\n", "utf-8"
    )
    found = score(["请坐", "坐"], ["请坐", "请坐"], [str(file), "rouge-1"])
    assert found["politeness"].value == 0.5
    assert found["politeness"].range == (0.0, 1.0)
    file.write_text("x = 1/0", "utf-8")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        metrics.from_file(file)
    file.write_text("x = 1", "utf-8")
    with pytest.raises(ConfigError, match="defines no metric"):
        metrics.from_file(file)
    with pytest.raises(ConfigError, match="File not found"):
        metrics.from_file(tmp_path / "none.py")


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as error:
        score(["a"], ["a"], ["rogue-1"])
    assert "rouge-1" in str(error.value.fix)


def test_score_file(tmp_path: Path) -> None:
    file = tmp_path / "generated_predictions.jsonl"
    file.write_text('{"prompt": "q", "predict": "a b", "label": "a b"}\n\n{"predict": "x", "label": null}\n', "utf-8")
    assert score_file(file, ["exact-match"])["exact-match"].n == 1
    file.write_text('[{"predict": "a", "label": "b"}]', "utf-8")
    assert score_file(file, ["exact-match"])["exact-match"].value == 0
    file.write_text('{"predict": "a", "label": "b"}\n{"label": "b"}\n', "utf-8")
    with pytest.raises(DataError) as error:
        score_file(file)
    assert "line 2" in str(error.value.where)
    file.write_text("{oops\n", "utf-8")
    with pytest.raises(DataError, match="Not valid JSON"):
        score_file(file)
    with pytest.raises(DataError, match="File not found"):
        score_file(tmp_path / "none.jsonl")
