# make demo | test | test-slurm | lint | lock. Each makes .venv from requirements.lock when that file is newer.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
BIN := .venv/bin

.PHONY: demo test test-slurm test-fast lint lock

.venv/.made: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("NanoUptake needs Python 3.11 or newer; found " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "nanouptake.pth").write_text(str(pathlib.Path("workflow/scripts").resolve()) + "\n")'
	@touch $@

demo: .venv/.made
	$(BIN)/snakemake --cores $(CORES)

lint: .venv/.made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	@$(BIN)/snakemake --lint

# Everything but SLURM, with a real run of two full-size reference patients against their truth.
test: lint
	$(BIN)/pytest -m "not slurm" -rP --show-capture=stdout

# The workflow through a real SLURM cluster that is brought up on this machine (Debian, root) and stopped.
test-slurm: .venv/.made
	$(BIN)/python tests/slurm/cluster.py --install -- true
	$(BIN)/pytest -m slurm -rP --show-capture=stdout tests/slurm

# Without that run: for the time between two edits.
test-fast: .venv/.made
	$(BIN)/ruff check .
	$(BIN)/pytest -m "not study and not slurm"

lock: .venv/.made
	$(BIN)/uv pip compile requirements.in --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --quiet --output-file requirements.lock
