# Every target needs Python 3.11+ and the package registries, and nothing else.
# PYTHON=python3.12 chooses the interpreter that .venv is made with.
# A recipe that fails makes `make` itself exit 2: the gate's own code is in its message,
# and is the exit code of `.venv/bin/python -m dev.run`.
# Bytecode is wanted: without it each worker of each run compiles every test anew.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: run rehearse test lint faults refusals parameters coverage bench lock image venv

run: venv  ## apply migrations/ to the configured database, or to an embedded one
	@.venv/bin/python -m dev.run

rehearse: venv  ## what migrations/ would do, on an embedded database; ARGS="--from 004"
	@.venv/bin/python -m dev.run rehearse $(ARGS)

test: venv  ## the suite, on an embedded PostgreSQL; ARGS="-k lock" for a part
	@.venv/bin/python -m pytest -n 5 -m "not docker and not thorough and not helm" $(ARGS)

lint: venv  ## what CI asks of the code's form
	@.ci/run lint

faults: venv  ## every fault at every message: points tried and survived; half an hour
	@.venv/bin/python -m tests.faults $(ARGS)

refusals: venv  ## statements refused with each SQLSTATE, in six scenarios: tried and told right
	@.venv/bin/python -m tests.refusals $(ARGS)

parameters: venv  ## each of PostgreSQL's parameters with odd defaults; minutes
	@.venv/bin/python -m tests.parameters $(ARGS)

coverage: venv  ## the suite with branch coverage, the gate's processes included
	@.venv/bin/python -m pytest -n 4 -m "not docker and not helm" --cov $(ARGS)

bench: venv  ## side by side with peers; ARGS="--case noop --peer dbmate" for a part
	@.venv/bin/python -m bench $(ARGS)

lock: venv  ## requirements/*.txt from pyproject.toml
	@dev/lock

image:  ## the image, as migration-gate:dev
	docker build -t migration-gate:dev .

venv:
	@dev/setup
