# Two commands do everything: `make run` and `make test`. PYTHON chooses the interpreter, VENV where its environment goes.
PYTHON ?= python3
VENV ?= .venv
HTTP_PORT ?= 9090
UWSGI_PORT ?= 3031
NGINX_PORT ?= 8080
# Files of tests at once. Most of a test is waiting, so one more than the two processors of a small machine.
JOBS ?= 3

.PHONY: run test check bench micro clean help

help:
	@echo "make run     the demo application on HTTP and uwsgi sockets, behind nginx when that is installed"
	@echo "make test    install what the tests need (nginx too) and run them all; ARGS='-k name' chooses"
	@echo "make check   ruff, mypy --strict and the layer test"
	@echo "make bench   corelet beside uWSGI, gunicorn, granian and waitress; ARGS=--quick for a short one"
	@echo "make micro   microseconds of the parts of a request"

run: $(VENV)/.run
	@VENV=$(VENV) HTTP_PORT=$(HTTP_PORT) UWSGI_PORT=$(UWSGI_PORT) NGINX_PORT=$(NGINX_PORT) examples/run_demo.sh

test: $(VENV)/.test
	@nginx/need.sh && tests/need.sh
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: $(VENV)/.check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest tests/test_layers.py

bench: $(VENV)/.run
	bench/peers.sh
	.venv-bench/bin/python bench/run.py --peers .venv-bench/bin $(ARGS)

micro: $(VENV)/.test
	$(VENV)/bin/python bench/micro.py $(ARGS)

# One stamp for each set of packages; pyproject.toml is what they depend on.
$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "corelet needs CPython 3.11 or later; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing; Debian, Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable ".[test]"
	@touch $@

$(VENV)/.check: $(VENV)/.test
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable ".[test,check]"
	@touch $@

clean:
	rm -rf $(VENV) .run build *.egg-info
