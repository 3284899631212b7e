# make run: a real search at laptop size.  make test: style, types and tests.
# The first of either sets everything up under .venv and .build.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(wildcard ops/*.cc ops/*.h) ops/CMakeLists.txt ops/exports.map
SYSTEM_HEADERS := $(wildcard /usr/include/onnxruntime/onnxruntime_c_api.h /usr/local/include/onnxruntime_c_api.h)

.PHONY: run test lint types clean
.DELETE_ON_ERROR:

run: .venv/.installed
	$(BIN)/bitsearch run --model caloinn --trials 20 --out runs/caloinn

test: lint
	$(BIN)/pytest

lint: .venv/.installed types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror ops/*.cc ops/*.h

# mypy cannot see through an editable install: it gets the tree as it is installed.
types: .venv/.installed
	rm -rf .build/typed
	mkdir -p .build/typed/bitsearch
	ln -s $(addprefix $(CURDIR)/,$(wildcard bitsearch/*) models ops search_spaces) .build/typed/bitsearch
	ln -s $(CURDIR)/tests $(CURDIR)/benchmarks .build/typed
	cd .build/typed && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
	  --cache-dir $(CURDIR)/.mypy_cache bitsearch tests benchmarks

clean:
	rm -rf .venv .build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/.installed: .venv/.tools .build/headers pyproject.toml $(SOURCES)
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[search,test,lint]'
	touch $@

.venv/.tools: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "found Python " + sys.version + ", expected 3.11 or newer: set PYTHON")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt scikit-build-core cmake ninja build
	touch $@

# onnxruntime's C headers; ops/CMakeLists.txt looks where they land.
.build/headers: ops/fetch_headers.py
	mkdir -p .build
	$(if $(ONNXRUNTIME_INCLUDE_DIR)$(SYSTEM_HEADERS),,$(PYTHON) ops/fetch_headers.py .build/onnxruntime)
	touch $@
