# One place for every command that people and CI share; `make help` lists them.

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
FUZZ_SECONDS ?= 60
RELEASE := target/release

.DEFAULT_GOAL := help
.PHONY: help build demo test check e2e-garage soak bench bench-instructions fuzz install uninstall clean

help: ## Lists what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Builds rbuild, rregistry, rrun, rrun-oci and their helper, optimised
	$(CARGO) build --release --locked -p builder -p registry -p runner
	@# The helper that enters a sandbox starts in a fraction of the time when it is static.
	$(CARGO) rustc --release --locked -p sandbox --bin rrun-init -- -C target-feature=+crt-static

demo: ## Builds, pushes, pulls and runs an image, and leaves nothing running
	@testdata/demo/run

check: ## Formats, lints and tests all that needs no privileges
	@.ci/test check

test: ## Runs every test: unit, integration, privileged, end-to-end
	@.ci/test all

e2e-garage: ## Runs the registry on garage, a distributed store; builds that first, once
	@.ci/test garage

soak: ## Runs the long loops of kill -9, races and load (SOAK_SECONDS=300 each, SOAK_KILLS=200 of builds)
	@.ci/test soak

bench: ## Compares with other people's programs; prints ratios
	@testdata/install-packages bench
	@$(MAKE) --no-print-directory build
	$(CARGO) run --release --locked -p bench -- $(BENCH)

bench-instructions: ## Counts the instructions of the hot loops with valgrind, against the last counts
	@testdata/install-packages bench
	$(CARGO) run --release --locked -p bench -- instructions bench/instructions.json $(BENCH)

fuzz: ## Runs each fuzz target for FUZZ_SECONDS (60); needs cargo-fuzz, any compiler will do
	@cd fuzz && for target in $$($(CARGO) fuzz list); do \
	  mkdir -p corpus/$$target; echo "== $$target"; \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target corpus/$$target seeds/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1 || exit 1; \
	done

install: ## Installs the built programs under PREFIX (/usr/local)
	@test -x $(RELEASE)/rrun-init || { echo "error: nothing is built; run make build first" >&2; exit 1; }
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec
	install -m 755 $(RELEASE)/rbuild $(RELEASE)/rregistry $(RELEASE)/rrun $(RELEASE)/rrun-oci $(DESTDIR)$(PREFIX)/bin/
	install -m 755 $(RELEASE)/rrun-init $(DESTDIR)$(PREFIX)/libexec/

uninstall: ## Removes what install put there
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,rbuild rregistry rrun rrun-oci) $(DESTDIR)$(PREFIX)/libexec/rrun-init

clean: ## Removes what was built
	$(CARGO) clean
