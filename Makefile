# Two commands for a fresh machine: `make demo` and `make test`. Each installs what it needs.

PROFILE ?= release
BIN     := target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/semel

.PHONY: help setup host guests demo run bench test torture walls clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' Makefile | column -t -s '|'

setup:
	@.ci/setup

host: setup
	cargo build --locked --profile $(PROFILE) -p semel

guests: host ## build every example function into target/functions/NAME
	$(BIN) build guests/*/ --out target/functions

demo: guests ## 10,000 requests to a counter while its host is killed again and again; the count must be exact
	$(BIN) experiment counter

run: guests ## start a host with the examples deployed
	@.ci/try $(BIN)

bench: guests ## what the sandbox costs, and how fast a queue is drained
	$(BIN) bench

test: ## everything that CI runs
	@.ci/test

torture: guests ## the long experiments: twice the kills, both contracts
	$(BIN) experiment counter --messages 10000 --kills 40
	$(BIN) experiment counter --messages 10000 --kills 40 --contract begin-once --out target/experiments/counter-begin-once

walls: ## take each wall out in turn: the test that names it must fail
	@.ci/walls

clean:
	cargo clean
