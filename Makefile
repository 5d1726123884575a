# make lab: a running, deployed and verified lab. make test: everything that must pass. Both install what they need.
.DELETE_ON_ERROR:
.PHONY: help setup lab test hostless newest lint unit render pages long docs bench bench-dormancy soak molecule roles mutants clean distclean

LEMONSTAND := .venv/bin/lemonstand
LAB ?= lab
# Tests of one module stay together: they share what takes long to make.
PARALLEL = -n auto --maxprocesses 4 --dist loadscope
# Two labs: a lab mostly waits. Tests of one file share a lab, in their order.
LABS = -n 2 --dist loadfile

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup: ## Debian packages (as root) and the virtual environment
	@scripts/setup

lab: setup ## a lab: up, deployed, verified
	$(LEMONSTAND) lab up --name $(LAB)
	$(LEMONSTAND) apply --lab $(LAB)
	$(LEMONSTAND) verify --lab $(LAB); code=$$?; $(LEMONSTAND) report --lab $(LAB) && exit $$code
	$(LEMONSTAND) summary --lab $(LAB)

lint: setup ## ruff, mypy, yamllint, ansible-lint, syntax
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/yamllint --strict .
	.venv/bin/ansible-lint -q
	.venv/bin/ansible-playbook -i inventories/lab --syntax-check playbooks/site.yml playbooks/close-service.yml playbooks/open-service.yml \
	  playbooks/drain-service.yml playbooks/undrain-service.yml

unit: setup ## tests that need no host
	.venv/bin/pytest -q $(PARALLEL) tests/unit tests/contract

render: setup ## every template, judged by the programs that read it, in a container
	.venv/bin/pytest -q tests/render

pages: ## the report in a browser without a network: links, filters, keyboard, paper
	@scripts/setup --browser
	.venv/bin/pytest -q tests/pages

test: setup ## all of it, with labs of its own
	@$(MAKE) --no-print-directory --jobs=4 --output-sync=target lint pages hostless newest
	.venv/bin/pytest -q $(LABS) tests/lab -m "not long"

newest: setup ## what the newest ansible-core could break first: values, filters, actions (as root, where it can be had; the rest is in `make long`)
	scripts/newest pytest -q -p no:cacheprovider tests/unit/test_filters.py tests/unit/test_kit.py tests/unit/test_origins.py || [ $$? = 75 ]

hostless: setup
	.venv/bin/pytest -q $(PARALLEL) tests/unit tests/contract tests/render

long: setup ## what takes too long for every change: ACME, the red team and its breaks, rotation, failures, each flow taken out, the newest ansible-core
	.venv/bin/pytest -q tests/lab -m long

docs: setup ## the documents that are made from data
	.venv/bin/python -m lemonstand.derived.flow_chart >docs/flows.md
	.venv/bin/python -m lemonstand.derived.role_pages docs/roles
	.venv/bin/python -m lemonstand.derived.variables_page docs/variables.md
	.venv/bin/python -m lemonstand.derived.variables_table playbooks/variables.json
	.venv/bin/python -m lemonstand.redteam.lab_page >docs/threat-analysis.md

bench: setup ## stages, tasks, memory, logins, forwarding and push, measured on a lab of its own
	.venv/bin/python benchmarks/bench.py

bench-dormancy: setup ## wake-ups an hour, and memory of 500 and 2,000 sleeping sessions, on a lab of its own
	.venv/bin/python benchmarks/dormancy.py

soak: setup ## all checks, and connections held for two hours and ten minutes through a lab that is deployed
	$(LEMONSTAND) verify --lab $(LAB) --soak

molecule: setup ## the lab's life by Molecule: check, converge, idempotence, verify
	PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/molecule test

roles: setup ## every role alone, by its own example, on a lab of its own: check, converge, idempotence, check, verify
	scripts/roles

mutants: setup ## every deliberate break, on labs side by side, and whether the checks notice; then a whole verification of each
	scripts/mutants

clean: ## away with all labs, networks and changed kernel settings; caches stay
	@if [ -x $(LEMONSTAND) ]; then $(LEMONSTAND) lab down --all; fi
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .ansible

distclean: clean ## caches and the virtual environment too
	@if [ -x $(LEMONSTAND) ]; then $(LEMONSTAND) lab forget; fi
	rm -rf .venv
	@echo "these Debian packages stay: $$(sed -n 's/^packages="\(.*\)"/\1/p; s/^browser="\(.*\)"/\1/p' scripts/setup)"
