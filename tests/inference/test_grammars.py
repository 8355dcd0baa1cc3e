"""Constrained decoding: every answer follows its grammar, however it is sampled; a schema that cannot is refused."""

from __future__ import annotations

import json
import random
import threading
from typing import Any

import jsonschema_rs
import pytest

from sartor.base.settings import GenerationSettings
from sartor.inference.batcher import Batcher
from sartor.inference.engine import Answer, Engine
from sartor.inference.grammars import Grammar, GrammarError, Grammars
from sartor.inference.requests import Progress, Request

SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False},
    {"enum": ["red", "green", 3, None, [1], {"a": "b"}]},
    {"type": "array", "items": {"type": "integer", "minimum": -5, "maximum": 40}, "minItems": 2, "maxItems": 3},
    {"type": "string", "pattern": "^[a-c]{2,4}-[0-9]{3}$"},
    {"type": "string", "format": "date"},
    {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 4}]},
    {
        "$defs": {"place": {"enum": ["Longbourn", "彭伯里"]}},
        "type": "object",
        "properties": {"from": {"$ref": "#/$defs/place"}, "to": {"$ref": "#/$defs/place"}},
        "required": ["from", "to"],
        "additionalProperties": False,
    },
]


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Any) -> Engine:
    return Engine.load(str(tiny_model_dir), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def grammars(engine: Engine) -> Grammars:
    return Grammars(engine.tokenizer, engine.encoder.stop_ids)


def answered(engine: Engine, requests: list[Request]) -> list[Answer | str]:
    """Each request's answer or error, all in one batch."""
    found: dict[int, Answer | str] = {}
    done = threading.Event()

    def on_progress(index: int, progress: Progress) -> None:
        if (ended := progress.answer or progress.error) is not None:
            found.setdefault(index, ended)
            if len(found) == len(requests):
                done.set()

    batcher = Batcher(engine, max_waiting=100_000)
    try:
        batcher.submit(requests, on_progress)
        done.wait()
    finally:
        batcher.close()
    return [found[index] for index in range(len(requests))]


def request(engine: Engine, grammar: Grammar | None, seed: int, **settings: Any) -> Request:
    prompt = tuple(engine.prompt([{"role": "user", "content": f"Say {seed}"}]).ids.tolist())
    given = GenerationSettings(**{"max_new_tokens": 120, "do_sample": seed > 0, "temperature": 1.5} | settings)
    return Request(prompt, given, seed=seed, grammar=grammar, frequency_penalty=0.5 if seed % 2 else 0.0)


def test_every_finished_answer_is_valid_in_one_batch_with_free_ones(
    engine: Engine, grammars: Grammars, trials: int
) -> None:
    jobs = [(schema, seed) for schema in SCHEMAS for seed in range(trials)]
    asked = [request(engine, grammars.json(schema), seed, top_p=1.0, top_k=0) for schema, seed in jobs]
    free = [request(engine, None, seed, max_new_tokens=20) for seed in range(4)]
    answers = answered(engine, [*asked, *free])
    finished = 0
    for (schema, seed), answer in zip(jobs, answers, strict=False):
        assert isinstance(answer, Answer), (schema, seed, answer)
        if answer.stop_reason == "stop":
            jsonschema_rs.validate(schema, json.loads(answer.text))
            finished += 1
    assert finished > 0.9 * len(jobs)
    alone = [answered(engine, [one])[0] for one in free]
    assert [answer.ids for answer in answers[len(jobs) :]] == [answer.ids for answer in alone]  # type: ignore[union-attr]


def test_a_complete_answer_ends_at_once(engine: Engine, grammars: Grammars) -> None:
    (answer,) = answered(engine, [request(engine, grammars.json(SCHEMAS[0]), 0)])
    assert isinstance(answer, Answer)
    assert answer.stop_reason == "stop"
    assert set(json.loads(answer.text)) == {"ok"}
    assert answer.text.endswith("}")


def test_white_space_cannot_go_on_for_ever(engine: Engine, grammars: Grammars) -> None:
    guide = grammars.json({"type": "object"}).start()
    space = engine.tokenizer.encode(" ")[0]
    guide.take(engine.tokenizer.encode("{")[0])
    for _ in range(32):
        assert guide.allowed(300)[space]
        guide.take(space)
    assert not guide.allowed(300)[space]
    assert not guide.failed


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "strin"}, "strin"),
        ({"$ref": "https://evil.example/schema.json"}, "evil.example"),
        ({"$ref": "#/$defs/none"}, "none"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "Unsatisfiable"),
        ({"properties": {"a": {"x-guidance": {"lenient": True}, "not": {}}}}, "not"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "not"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(grammars: Grammars, schema: dict[str, Any], says: str) -> None:
    with pytest.raises(GrammarError, match="cannot be followed") as caught:
        grammars.json(schema)
    assert says in str(caught.value.what)
    assert len(str(caught.value.what)) < 400


BOMBS: list[dict[str, Any]] = [
    {"type": "string", "pattern": "(a{1000}){1000}"},
    {"type": "string", "pattern": "(.*a){30}b", "minLength": 10**9},
    {"type": "array", "items": {"type": "integer"}, "minItems": 10**7},
    {"anyOf": [{"type": "string", "pattern": f"^(x|y)*{n}(.*z){{12}}$"} for n in range(40)]},
    {"$ref": "#"},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
    {"type": "integer", "minimum": 10**300, "maximum": 10**301},
    {"type": "number", "multipleOf": 1e-300},
    {"type": "object", "properties": {f"p{n}": {"type": "integer"} for n in range(2000)}},
]


@pytest.mark.parametrize("schema", BOMBS)
def test_a_schema_made_to_be_slow_ends_with_an_answer_or_an_error(
    engine: Engine, grammars: Grammars, schema: dict[str, Any]
) -> None:
    try:
        grammar = grammars.json(schema)
    except GrammarError:
        return
    (answer,) = answered(engine, [request(engine, grammar, 1, max_new_tokens=40)])
    assert isinstance(answer, (Answer, str))


def odd_schema(rng: random.Random, depth: int = 0) -> Any:
    """A schema that may be whole, odd or wrong."""
    if depth > 3 or rng.random() < 0.1:
        return rng.choice([{}, True, {"type": "string"}, {"const": 3}, {"type": ["integer", "null"]}, 7, None, "x", []])
    inner = lambda: odd_schema(rng, depth + 1)  # noqa: E731
    keys: dict[str, Any] = {
        "type": rng.choice(["object", "array", "string", "integer", "number", "boolean", "null"]),
        "properties": {rng.choice('abc\u6797"\\'): inner() for _ in range(rng.randrange(3))},
        "required": rng.sample(["a", "b", "z"], rng.randrange(3)),
        "additionalProperties": rng.choice([False, True, {}]),
        "items": inner(),
        "prefixItems": [inner()],
        "anyOf": [inner(), inner()],
        "enum": rng.sample([1, "a", None, [], {"k": 1}, -0.5, "\u00e9\n"], rng.randrange(1, 4)),
        "minLength": rng.choice([0, 2, -1, "3"]),
        "maxItems": rng.randrange(3),
        "minimum": rng.choice([-3, 0.5, 10**30]),
        "pattern": rng.choice(["^a+$", "[", "(?i)b", "\\d{2}"]),
        "format": rng.choice(["date", "uuid", "ipv4", "email", "odd"]),
        "$ref": rng.choice(["#", "#/properties/a", "http://x/", 3]),
    }
    return {name: keys[name] for name in rng.sample(list(keys), rng.randrange(1, 4))}


def test_a_random_schema_is_followed_or_refused(engine: Engine, grammars: Grammars, trials: int) -> None:
    schemas, asked, refused = [], [], 0
    for seed in range(trials * 20):
        schema = odd_schema(random.Random(seed))
        try:
            grammar = grammars.json(schema if isinstance(schema, dict) else {"anyOf": [schema]})
        except GrammarError:
            refused += 1
            continue
        schemas.append(schema)
        asked.append(request(engine, grammar, seed % 7, max_new_tokens=60, top_p=1.0, top_k=0))
    finished = 0
    for start in range(0, len(asked), 32):
        for schema, answer in zip(schemas[start:], answered(engine, asked[start : start + 32]), strict=False):
            if isinstance(answer, Answer) and answer.stop_reason == "stop":
                try:
                    judge = jsonschema_rs.validator_for(schema)
                except (ValueError, jsonschema_rs.ValidationError):
                    continue  # wrong in a part that no answer reaches
                finished += 1
                value = json.loads(answer.text)
                if "Infinity" not in json.dumps(value):  # JSON has larger numbers than Python
                    assert judge.is_valid(value), (schema, answer.text)
    assert refused < len(schemas) * 4
    assert finished > len(schemas) // 4


def test_a_grammar_that_fails_ends_its_own_answer_alone(engine: Engine, grammars: Grammars) -> None:
    class Broken:
        """A matcher that allows nothing, as one that ran out of its limits."""

        def deep_copy(self) -> Broken:
            return self

        def get_error(self) -> str:
            return "too complex\nstate"

        def is_stopped(self) -> bool:
            return True

        def is_error(self) -> bool:
            return True

        def compute_bitmask(self) -> bytes:
            return bytes(40)

        def consume_token(self, token: int) -> None:
            pass

    first, second = answered(
        engine, [request(engine, Grammar(Broken()), 0), request(engine, grammars.json(SCHEMAS[0]), 0)]
    )
    assert first == "The grammar cannot be followed: too complex"
    assert isinstance(second, Answer)
    json.loads(second.text)


def test_where_no_token_may_come_next_the_answer_fails_and_is_not_made_up(engine: Engine) -> None:
    class DeadEnd:
        """A matcher that goes on, but with none of the tokens."""

        def deep_copy(self) -> DeadEnd:
            return self

        def get_error(self) -> str:
            return ""

        def is_stopped(self) -> bool:
            return False

        def is_error(self) -> bool:
            return False

        def compute_bitmask(self) -> bytes:
            return bytes(40)

        def consume_token(self, token: int) -> None:
            pass

    (answer,) = answered(engine, [request(engine, Grammar(DeadEnd()), 0)])
    assert answer == "The grammar cannot be followed: none of this model's tokens may come next"


@pytest.mark.real
def test_the_embedded_model_answers_in_json() -> None:
    engine = Engine.load("smollm2-135m", dtype="float32", device="cpu")
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 30},
            "born": {"type": "integer", "minimum": 1700, "maximum": 2000},
        },
        "required": ["name", "born"],
        "additionalProperties": False,
    }
    text = "Describe the author Jane Austen as JSON with name and born (a year)."
    prompt = tuple(engine.prompt([{"role": "user", "content": text}]).ids.tolist())
    grammar = Grammars(engine.tokenizer, engine.encoder.stop_ids).json(schema)
    settings = GenerationSettings(max_new_tokens=80, do_sample=True, temperature=1.3, top_p=1.0, top_k=0)
    asked = [Request(prompt, settings, seed=seed, grammar=grammar) for seed in range(4)]
    asked.append(Request(prompt, GenerationSettings(max_new_tokens=80), grammar=grammar))
    answers = answered(engine, asked)
    for answer in answers:
        assert isinstance(answer, Answer)
        if answer.stop_reason == "stop":
            jsonschema_rs.validate(schema, json.loads(answer.text))
    assert isinstance(answers[-1], Answer)
    assert json.loads(answers[-1].text)["name"] == "Jane Austen"
