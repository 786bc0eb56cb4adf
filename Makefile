# What a fresh machine needs: Python 3.8 or newer with venv and tkinter, and make.
PYTHON ?= python3
VENV ?= .venv
# The torch requirement: for example TORCH=torch==2.13.0, or a wheel file.
TORCH ?= torch
# A tomogram of your own for the demo (MRC); empty: a simulated one.
TOMOGRAM ?=
DEMO ?= demo

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint gui install table clean

demo: $(INSTALLED)  ## simulate a tomogram and denoise it in a real Scipion project
	$(BIN)/python -m f2fd_scipion.demo --folder "$(DEMO)" $(if $(TOMOGRAM),--tomogram "$(TOMOGRAM)")

test: lint  ## all tests of the engine and the plugin
	$(BIN)/python -m pytest -q

lint: $(INSTALLED)
	$(BIN)/ruff check .

gui: $(INSTALLED)  ## open the demo's project in the Scipion window
	$(BIN)/python -m f2fd_scipion.gui --folder "$(DEMO)"

table: $(INSTALLED)  ## renew the README's table of arguments
	$(BIN)/python -m f2fd_core.arguments README.md

install: $(INSTALLED)

$(INSTALLED): setup.py
	$(PYTHON) -m venv "$(VENV)"
	$(BIN)/python -m pip install -q "$(TORCH)" -e ".[engine,scipion,test]"
	touch $@

clean:
	rm -rf "$(VENV)" "$(DEMO)" build *.egg-info
