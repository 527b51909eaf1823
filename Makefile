# Two commands on a fresh machine: `make demo` and `make test`. Each makes its own environment in .venv first.
PYTHON ?= python3
# Where torch is not there already, this one is installed: a CPU build is enough for everything here.
TORCH ?= torch==2.13.0
FUZZ_SECONDS ?= 60
# The wheels of a release: what each carries images for. See docs/building.md.
WHEELS ?= off 12.6 12.8 12.9 13.0
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint fuzz bench wheels clean

demo: $(VENV)/run.stamp
	$(BIN)/lora-mmap demo

test: $(VENV)/test.stamp lint
	$(BIN)/python -m pytest -n 2
	$(MAKE) --no-print-directory fuzz

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' 'tests/*.h' 'tests/*.cpp' | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest lora_mmap._C --allowlist tests/stubtest_allowlist.txt

# The parsers that meet untrusted bytes, under ASan and UBSan. Needs clang++; says so where there is none.
fuzz: $(VENV)/test.stamp
	tests/fuzz/run $(BIN)/python $(FUZZ_SECONDS)

bench: $(VENV)/test.stamp
	$(BIN)/python -m bench --quick

# From an sdist, so that nothing of the checkout gets in; without pip's cache, which does not see LORA_MMAP_CUDA.
wheels: $(BIN)/python
	$(BIN)/pip install --quiet build
	rm -rf build/sdist && $(BIN)/python -m build --sdist --outdir build/sdist .
	for cuda in $(WHEELS); do \
	  LORA_MMAP_CUDA=$$cuda LORA_MMAP_LABEL=cuda \
	  $(BIN)/pip wheel --quiet --no-cache-dir --no-deps --wheel-dir dist build/sdist/*.tar.gz || exit 1; done
	ls -l dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet '$(TORCH)'

# Editable, so that what runs is what is checked out; the native sources are built anew when one of them changed.
SOURCES := $(shell git ls-files csrc CMakeLists.txt setup.py pyproject.toml MANIFEST.in)

$(VENV)/run.stamp: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet -e .
	touch $@

# The tests compile the kernels: with what is there, else with NVRTC, which needs no GPU.
$(VENV)/test.stamp: $(BIN)/python $(SOURCES)
	cd csrc/cuda/images && $(CURDIR)/$(BIN)/python -m compile_images choose --required || \
	  $(CURDIR)/$(BIN)/pip install --quiet 'nvidia-cuda-nvrtc-cu12==12.8.*'
	CMAKE_ARGS=-DLORA_MMAP_WERROR=ON $(BIN)/pip install --quiet -e '.[peers,test,lint,fuzz]'
	touch $@

clean:
	rm -rf $(VENV) build dist lora_mmap/_C.*.so *.egg-info
