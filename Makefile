# Two commands for a fresh machine: `make demo` and `make test`. Each installs what it needs.

PROFILE ?= release
BIN     := target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/semel

.PHONY: help setup host guests demo run customers bench test torture fuzz-http fuzz-sql walls clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | column -t -s '|'

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

customers: guests ## the outbox pattern, whole: an app on port 3000, RabbitMQ, and a worker
	@.ci/customers $(BIN)

bench: guests ## what the sandbox costs, and how fast a queue is drained
	$(BIN) bench

test: ## everything that CI runs
	@.ci/test

torture: guests fuzz-http fuzz-sql ## the long experiments: twice the kills, both contracts, every crash point, 10,000 misbehaving runs, and both fuzzers
	$(BIN) experiment counter --messages 10000 --kills 40
	$(BIN) experiment counter --messages 10000 --kills 40 --contract begin-once --out target/experiments/counter-begin-once
	.ci/with-postgres $(BIN) experiment counter --database DATABASE_URL --out target/experiments/counter-shared
	.ci/with-mariadb $(BIN) experiment counter --database DATABASE_URL --out target/experiments/counter-mariadb
	.ci/with-postgres $(BIN) experiment counter --database DATABASE_URL --messages 3000 --contract begin-once --out target/experiments/counter-shared-begin-once
	.ci/with-mariadb $(BIN) experiment counter --database DATABASE_URL --messages 3000 --contract begin-once --out target/experiments/counter-mariadb-begin-once
	.ci/with-postgres $(BIN) experiment crash-matrix --database DATABASE_URL
	.ci/with-mariadb $(BIN) experiment crash-matrix --database DATABASE_URL --out target/experiments/crash-matrix-mariadb
	$(BIN) experiment failures --messages 10000
	$(BIN) experiment fuel --messages 50 --attempts 10
	.ci/with-postgres $(BIN) experiment fuel --database DATABASE_URL --out target/experiments/fuel-shared
	.ci/with-mariadb $(BIN) experiment fuel --database DATABASE_URL --out target/experiments/fuel-mariadb
	$(BIN) experiment timeouts
	.ci/with-postgres $(BIN) experiment timeouts --database DATABASE_URL --out target/experiments/timeouts-shared
	.ci/with-mariadb $(BIN) experiment timeouts --database DATABASE_URL --out target/experiments/timeouts-mariadb
	$(BIN) experiment publish
	.ci/with-postgres $(BIN) experiment publish --database DATABASE_URL --out target/experiments/publish-shared
	.ci/with-mariadb $(BIN) experiment publish --database DATABASE_URL --out target/experiments/publish-mariadb
	$(BIN) experiment email
	.ci/with-postgres $(BIN) experiment email --database DATABASE_URL --out target/experiments/email-shared
	.ci/with-mariadb $(BIN) experiment email --database DATABASE_URL --out target/experiments/email-mariadb
	$(BIN) experiment outbox
	.ci/with-postgres $(BIN) experiment outbox --database DATABASE_URL --out target/experiments/outbox-shared
	.ci/with-mariadb $(BIN) experiment outbox --database DATABASE_URL --out target/experiments/outbox-mariadb
	$(BIN) experiment sink-down
	ROLLS=100 cargo test --locked -p semel --test it -- rolling
	SEMEL_HISTORIES=500 cargo test --locked -p semel --test it -- histories
	POISON=10000 cargo test --locked -p semel --test it -- poison
	LOST_COMMITS=30 BLACK_HOLE=60 DATABASE_KILLS=50 cargo test --locked -p semel --test it -- lost_commits outages

fuzz-http: guests ## 20,000 requests that the OpenAPI document allows, or does not: no 5xx, nothing undocumented
	@.ci/fuzz-http $(BIN)

fuzz-sql: setup ## a million statements against the walls around guest SQL; SEMEL_FUZZ_SEED chooses which
	SEMEL_FUZZ_STATEMENTS=$${SEMEL_FUZZ_STATEMENTS:-1000000} cargo test --locked -p semel --lib no_statement_gets_out
	SEMEL_FUZZ_STATEMENTS_POSTGRES=$${SEMEL_FUZZ_STATEMENTS_POSTGRES:-100000} cargo test --locked -p semel --test it -- no_statement_gets_out_of_postgres

walls: ## take each wall out in turn: the test that names it must fail
	@.ci/walls

clean:
	cargo clean
