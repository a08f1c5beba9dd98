# Two commands for a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-slow lint types clean

# The core and its simulator, no torch.
$(VENV)/core: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[sim]'
	touch $@

# torch from its CPU build first: anything that asks for torch later is then content.
$(VENV)/dev: $(VENV)/core
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[train,dev]'
	touch $@

# Build the shipped network into an iCE40 bitstream and check it bit-exactly.
demo: $(VENV)/core
	$(BIN)/hwq show examples/fashion/model.hwq
	$(BIN)/hwq build examples/fashion/model.hwq --target ice40 -o out/demo
	$(BIN)/hwq verify out/demo --data examples/fashion/test.npz --stalls 1

test: $(VENV)/dev
	$(BIN)/python -m pytest -q -n 2

test-slow: $(VENV)/dev
	$(BIN)/python -m pytest -q -m slow

lint: $(VENV)/dev
	$(BIN)/ruff check .

# The mapped folders (rtl, sim, boards) are visible to the type checker in a plain install only.
types: $(VENV)/dev
	rm -rf build $(VENV)/types
	$(BIN)/pip install --quiet --no-deps --target $(VENV)/types --upgrade .
	cd $(VENV)/types && ../bin/mypy --config-file ../../pyproject.toml --python-executable ../bin/python -p hwq

clean:
	rm -rf $(VENV) build out *.egg-info
