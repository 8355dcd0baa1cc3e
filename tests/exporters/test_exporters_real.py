"""A run of the embedded model goes to GGUF and to Ollama's form and answers through llama.cpp as through Sartor."""

from __future__ import annotations

from pathlib import Path

import pytest

from sartor import api
from sartor.base.config import RunConfig
from sartor.base.settings import GenerationSettings
from sartor.exporters._llama_cpp import LlamaCpp

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]
QUESTIONS = ["Who is Mr Darcy?", "Where do the Bennets live?", "What is the capital of France?", "Name a colour."]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    api.import_file(ROOT / "examples" / "pride" / "pride_qa_en.csv", "pride", dataset_dir=folder / "data")
    config = RunConfig.from_dict(
        {
            "model_name_or_path": "smollm2-135m",
            "dataset": "pride",
            "dataset_dir": str(folder / "data"),
            "max_steps": 8,
            "learning_rate": 5e-4,
            "per_device_train_batch_size": 4,
            "cutoff_len": 256,
            "plot_loss": False,
            "output_dir": str(folder / "run"),
        }
    )
    api.train(config)
    return folder / "run"


def test_a_tuned_run_answers_through_llama_cpp_as_through_sartor(run: Path, tmp_path: Path) -> None:
    done = api.export(run, "gguf", tmp_path / "gguf")
    assert done.checks[0].agreement >= 0.96
    assert done.checks[0].largest < 0.5
    engine = api.Engine.load("smollm2-135m", run, dtype="float32", device="cpu")
    file = next(path for path in done.files if path.suffix == ".gguf")
    same = 0
    with LlamaCpp(file, engine.model.config.vocab_size) as llama:
        for question in QUESTIONS:
            turns = [{"role": "user", "content": question}]
            ours = engine.chat(turns, GenerationSettings(max_new_tokens=24)).text
            theirs = llama.chat(turns, 24)
            same += ours.strip() == theirs.strip()
            assert ours[:10].strip() == theirs.strip()[: len(ours[:10].strip())], question
    assert same >= len(QUESTIONS) - 1  # a tie between two tokens may fall the other way in 16 bits


def test_eight_bits_stay_near_and_ollama_gets_its_modelfile(run: Path, tmp_path: Path) -> None:
    done = api.export(run, "ollama", tmp_path / "ollama", quant="q8_0")
    assert done.checks[0].agreement >= 0.9
    text = (tmp_path / "ollama" / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith("FROM ./run-q8_0.gguf\n")
    assert 'PARAMETER stop "<|im_end|>"' in text
