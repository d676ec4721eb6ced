# Every target works on a fresh machine with Python 3.11 or newer; `make demo` and `make test` make their own .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE ?= 1
export GRADIO_ANALYTICS_ENABLED ?= False

.PHONY: demo test fuzz test-golden-perturbed lint format types bench app system-deps clean
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[all,dev]'
	@touch $@

demo: $(STAMP)  ## run every finished system on its sample inputs; pictures and a page in demo_output/
	$(BIN)/python apps/demo.py --output demo_output

test: $(STAMP)  ## the test-suite
	$(BIN)/python -m pytest

FUZZ ?= 3000
fuzz: $(STAMP)  ## the seeded random tests in their long form: kernels and readers, FUZZ cases each; half an hour
	MMATTN_FUZZ=$(FUZZ) $(BIN)/python -m pytest -q -k fuzz

test-golden-perturbed: $(STAMP)  ## proves that the golden tests can fail
	$(BIN)/python -m tests.golden.perturb

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/mypy

BENCHMARKS := attention crane_attention crane_block_memory dattn aupro crash_forward crash_training crash_streaming crash_metrics lina_speech lina_decode
bench: $(STAMP)  ## repeats the recorded measurements; half an hour on two idle cores
	for name in $(BENCHMARKS); do $(BIN)/mmattn bench $$name --threads 1 2 --output benchmarks/results || exit 1; done

app: $(STAMP)  ## the apps in a browser, on http://127.0.0.1:7860
	$(BIN)/mmattn app

system-deps:  ## Debian packages of the optional parts (programs, photographs and word lists to train on); needs root
	apt-get update -q
	apt-get install -y -q --no-install-recommends chromium ffmpeg espeak-ng flite \
		lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds wamerican wordnet-base

clean:
	rm -rf $(VENV) demo_output build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
