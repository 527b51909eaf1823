# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own environment in .venv first.
PYTHON ?= python3
# Where torch is not there already, this one is installed: a CPU build is enough for everything here.
TORCH ?= torch==2.13.0
FUZZ_SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint fuzz bench clean

demo: $(VENV)/run.stamp
	$(BIN)/lora-mmap demo

test: $(VENV)/test.stamp lint
	$(BIN)/python -m pytest -n 2
	$(MAKE) --no-print-directory fuzz

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files 'csrc/*.h' 'csrc/*.cpp' 'tests/*.h' 'tests/*.cpp' | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest lora_mmap._C --allowlist tests/stubtest_allowlist.txt

# The parsers that meet untrusted bytes, under ASan and UBSan. Needs clang++; says so where there is none.
fuzz: $(VENV)/test.stamp
	tests/fuzz/run $(BIN)/python $(FUZZ_SECONDS)

bench: $(VENV)/test.stamp
	$(BIN)/python -m bench --quick

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet '$(TORCH)'

# Editable, so that what runs is what is checked out; the native sources are built anew when one of them changed.
SOURCES := $(shell git ls-files csrc CMakeLists.txt setup.py pyproject.toml)

$(VENV)/run.stamp: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/test.stamp: $(BIN)/python $(SOURCES)
	CMAKE_ARGS=-DLORA_MMAP_WERROR=ON $(BIN)/pip install --quiet -e '.[peers,test,lint,fuzz]'
	touch $@

clean:
	rm -rf $(VENV) build dist lora_mmap/_C.*.so *.egg-info
