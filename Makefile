# Needs Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= $(shell for p in python3.11 python3 python; do command -v $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SAMPLES := sample_models
CORES = $$(getconf _NPROCESSORS_ONLN)

.DEFAULT_GOAL := help
.PHONY: help demo test browser golden screenshots docs-rules evidence clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## examine three of the sample models and repair two
	@for model in healthy_tanh saturated_tanh deep_tanh; do \
	  set -- $(SAMPLES)/$$model.pt --data $(SAMPLES)/digits.npz --val $(SAMPLES)/digits_val.npz; \
	  echo; echo "\$$ gradscope inspect $$*"; echo; \
	  $(BIN)/gradscope inspect "$$@" || exit $$?; \
	done; \
	set -- $(SAMPLES)/saturated_tanh.pt --data $(SAMPLES)/digits.npz --val $(SAMPLES)/digits_val.npz; \
	echo; echo "\$$ gradscope fix $$* --out $(VENV)/fixed.pt"; echo; \
	$(BIN)/gradscope fix "$$@" --out $(VENV)/fixed.pt || exit $$?; \
	set -- $(SAMPLES)/saturated_cnn.pt --data $(SAMPLES)/mnist.npz --val $(SAMPLES)/mnist_val.npz --epochs 20; \
	echo; echo "\$$ gradscope fix $$* --out $(VENV)/fixed_cnn.pt"; echo; \
	$(BIN)/gradscope fix "$$@" --out $(VENV)/fixed_cnn.pt

test: $(VENV)/.installed-dev browser  ## lint, types and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy gradscope
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

browser:  ## Debian's Chromium, which the tests of the HTML page drive
	@for name in chromium chromium-browser google-chrome-stable google-chrome; do \
	  command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && \
	  apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	else echo "no Chromium: the tests of the HTML page are skipped (apt-get install chromium)"; fi

screenshots: $(VENV)/.installed-dev browser  ## renew the pictures of the HTML page in docs/; look at them
	$(BIN)/python -m tests.renew_screenshots

golden: $(VENV)/.installed-dev  ## renew the golden files of the tests; read the diff
	$(BIN)/python -m tests.renew_golden

docs: $(VENV)/.installed-docs  ## build the guide and the reference into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo site/index.html

docs-rules: $(VENV)/.installed-dev  ## renew docs/rules from the rules
	$(BIN)/python -m tests.renew_rule_pages

evidence: $(VENV)/.installed-dev  ## what takes hours: reference cases, the paper's experiments, repairs of the zoo
	GRADSCOPE_EVIDENCE=1 $(BIN)/python -m pytest tests/repair/test_reference_repairs.py
	$(BIN)/python bench/paper.py --full
	$(BIN)/python bench/calibration.py build --part dev --dir build/zoo --workers $(CORES)
	$(BIN)/python bench/fix_zoo.py --dir build/zoo --records build/zoo/fix.jsonl \
	  --workers $(CORES) --minutes 600

clean:  ## remove what make and the tools made
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: reinstall when what is asked for has changed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gradscope needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e '.[docs]'
	@touch $@
