# `make study` and `make test` need Rust, Python 3.10 or later, and pip; they create .venv and install the rest.
PYTHON ?= python3
VENV := $(CURDIR)/.venv
export VIRTUAL_ENV := $(VENV)
export PATH := $(VENV)/bin:$(PATH)
# Two jobs: a build of libtorch's wrapper takes about 2 GiB a job.
export CARGO_BUILD_JOBS ?= 2
# The same examples on every run of the Rust property tests; unset it, or choose another, to look for new ones.
export PROPTEST_RNG_SEED ?= 1

.PHONY: study test test-rust test-python lint docs install clean

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
	cargo clippy --quiet --locked --all-targets -- -D warnings
	cargo clippy --quiet --locked --release --package precode-python -- -D warnings
	ruff check
	ruff format --check
	mypy
	cd tests && python -m mypy.stubtest precode._precode  # from elsewhere, so that the installed package is read

test-rust: .venv/ready
	cargo test --quiet --locked

test-python: install
	pytest tests --pyargs precode

docs: install
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --no-deps
	mkdocs build --quiet --strict

clean:
	rm -rf .venv target site study
