# What a fresh machine needs: Python 3.8 or newer with venv and tkinter, and make.
PYTHON ?= python3
VENV ?= .venv
# The torch requirement: for example TORCH=torch==2.13.0, or a wheel file.
TORCH ?= torch
# A tomogram of your own for the demo (MRC); empty: a simulated one.
TOMOGRAM ?=
DEMO ?= demo
# Tests at a time, one more than cores: those of Scipion wait a third of their time.
JOBS ?= 3
# The environment of membrain-seg, for test-downstream.
MEMBRAIN ?= .venv-membrain

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTED := python -m pytest -q -n $(JOBS) --dist worksteal

test test-fast test-lowest test-newest: export OMP_NUM_THREADS = 1
test-lowest test-newest: export PYTHONPATH = $(CURDIR)

.PHONY: demo test test-fast test-downstream test-lowest test-newest lint gui docs install table clean

demo: $(INSTALLED)  ## simulate a tomogram and denoise it in a real Scipion project
	$(BIN)/python -m f2fd_scipion.demo --folder "$(DEMO)" $(if $(TOMOGRAM),--tomogram "$(TOMOGRAM)")

test: lint  ## all tests of the engine and the plugin
	$(BIN)/$(TESTED)

test-fast: lint  ## what takes seconds, of the engine
	$(BIN)/$(TESTED) -m "not slow" tests

test-downstream: $(INSTALLED) $(MEMBRAIN)/.installed  ## tests that install much: membrain-seg
	F2FD_TEST_MEMBRAIN="$(abspath $(MEMBRAIN))" F2FD_TEST_TORCH="$(TORCH)" \
		$(BIN)/python -m pytest -q f2fd_scipion/tests/test_downstream.py

test-lowest test-newest: test-%: $(INSTALLED)  ## tests of the engine, oldest or newest packages
	$(PYTHON) -m venv "$(VENV)-$*"
	eval "$(VENV)-$*/bin/python -m pip install -q $$($(BIN)/python tests/bounds.py $*)"
	$(VENV)-$*/bin/$(TESTED) tests

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gui: $(INSTALLED)  ## open the demo's project in the Scipion window
	$(BIN)/python -m f2fd_scipion.gui --folder "$(DEMO)"

table: $(INSTALLED)  ## renew the tables of docs/reference.md
	$(BIN)/python tools/reference.py docs/reference.md

docs: $(VENV)-docs/.installed  ## the site, in site/
	$(VENV)-docs/bin/mkdocs build --strict -q

install: $(INSTALLED)

$(INSTALLED): setup.py f2fd_core/requirements.txt
	$(PYTHON) -m venv "$(VENV)"
	$(BIN)/python -m pip install -q "$(TORCH)" -e ".[engine,test]"
	touch $@

$(VENV)-docs/.installed:
	$(PYTHON) -m venv "$(VENV)-docs"
	$(VENV)-docs/bin/python -m pip install -q mkdocs-material "mkdocstrings[python]"
	touch $@

$(MEMBRAIN)/.installed:
	$(PYTHON) -m venv "$(MEMBRAIN)"
	$(MEMBRAIN)/bin/python -m pip install -q "$(TORCH)" membrain-seg "typer<0.16" click
	touch $@

clean:
	rm -rf "$(VENV)" "$(VENV)-lowest" "$(VENV)-newest" "$(VENV)-docs" "$(MEMBRAIN)" site "$(DEMO)" build *.egg-info \
		f2fd_core/build f2fd_core/*.egg-info
