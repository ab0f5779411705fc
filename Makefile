# `make study` and `make test` need Rust, Python 3.10 or later, and pip; they create .venv and install the rest.
PYTHON ?= python3
VENV := $(CURDIR)/.venv
export VIRTUAL_ENV := $(VENV)
export PATH := $(VENV)/bin:$(PATH)
# Two jobs: a build of libtorch's wrapper takes about 2 GiB a job.
export CARGO_BUILD_JOBS ?= 2
# The same examples on every run of the Rust property tests; `make fuzz` looks for new ones.
export PROPTEST_RNG_SEED ?= 1
# With the torch that pip's build names too (see rust/python/backend.py), so that compiled crates are shared.
CARGO = LIBTORCH_USE_PYTORCH="$$(python3 rust/python/backend.py)" cargo

.PHONY: study test test-rust test-python lint docs figures fuzz cuda-check sdist install clean

study: install
	mkdir -p study
	precode curves --embedding hadamard --json study/curves.json --figures study
	precode study --preset quick --out study/quick

test: lint test-rust test-python docs

# The extension and everything that tests and documentation need. torch comes first: the extension is
# compiled against the very copy that it will run with.
install: .venv/ready
	pip install --quiet --no-build-isolation --constraint constraints.txt --no-deps --force-reinstall .

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --constraint constraints.txt --requirement constraints.txt
	touch $@

lint: install
	cargo fmt --all -- --check
	$(CARGO) clippy --quiet --locked --all-targets -- -D warnings
	$(CARGO) clippy --quiet --locked --release --package precode-python -- -D warnings
	ruff check
	ruff format --check
	mypy
	cd tests && python -m mypy.stubtest precode._precode  # from elsewhere, so that the installed package is read

test-rust: .venv/ready
	$(CARGO) test --quiet --locked

# Two at a time, a file each: many tests wait for processes that they start.
test-python: install
	pytest --numprocesses 2 --dist loadfile tests --pyargs precode

# Notebooks that the tests have just executed are not executed again.
docs: install
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --locked --no-deps
	mkdocs build --quiet --strict

# The pictures of README and documentation, from precode itself; they are committed.
figures: install
	python docs/figures/make.py

# Property tests on examples that nobody has seen, many times as many; no part of `make test`. EXAMPLES is the number
# for each test. A failing example is printed with what repeats it, and hypothesis keeps it in .hypothesis.
EXAMPLES ?= 2000
fuzz: install
	env -u PROPTEST_RNG_SEED PROPTEST_CASES=$(EXAMPLES) $(CARGO) test --quiet --locked --package precode-core --lib
	PRECODE_EXAMPLES=$(EXAMPLES) pytest tests -m hypothesis

# What needs a GPU: its tests, and the engines beside PyTorch's and JAX's ways to train there, as a table for
# docs/performance.md. Installs nothing: takes precode and torch of .venv, or else of the active environment.
# JAX leaves memory to torch.
cuda-check:
	@$(PYTHON) -c "import sys, torch; torch.cuda.is_available() or sys.exit(f'make cuda-check needs a CUDA device: torch {torch.__version__} sees none here')"
	$(PYTHON) -m pytest -q tests -m cuda
	XLA_PYTHON_CLIENT_PREALLOCATE=false $(PYTHON) -m precode bench --device cuda --peers --nets 128,4096 --repeats 3 --markdown --json cuda.json

# What is published as source: builds anywhere, without this repository.
sdist: install
	maturin sdist --out dist

clean:
	rm -rf .venv target site study dist .executed
