# Each target does all of its own set-up. What takes more than a line stands in script/.

SHELL := /bin/bash

# How long each fuzz target runs in `make test` and `make fuzz`.
export FUZZTIME ?= 10s

# What `make bench` measures, what `make run` starts.
BENCH_CODES ?= 10000000
BENCH_ARGS ?= all --ceiling --codes $(BENCH_CODES)
RUN_ARGS   ?= serve

.DEFAULT_GOAL := help
.PHONY: help build run test unit fuzz cross lint fmt bench generate screenshots clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

build: ## Build bin/scrip, static, for this machine
	@script/build

run: build ## Build and start the server (RUN_ARGS)
	bin/scrip $(RUN_ARGS)

test: ## Everything that must pass: lint, tests with the race detector, fuzzing, cross-builds
	@script/test

unit: ## Only the tests, with the race detector and coverage
	@script/unit
	@script/postgres

fuzz: ## Only the fuzz targets, FUZZTIME each
	@script/fuzz

cross: ## Only the cross-builds
	@script/cross

lint: ## Modules, format, vet, linters
	@script/lint

fmt: ## Format the code and tidy go.mod
	@script/fmt

bench: build ## Build and measure (BENCH_ARGS)
	bin/scrip bench $(BENCH_ARGS)

generate: ## Write the generated files again
	go generate ./...

screenshots: ## Write the README's pictures of the console again
	@script/screenshots

clean: ## Remove what was built
	rm -rf bin dist
