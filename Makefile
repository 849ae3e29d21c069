# `make` alone lists what there is. Every target installs what it needs and is missing.

TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
# What is shipped. Built by itself: building it together with the tests would give its
# dependencies the features that only tests ask for. The key library is built as nothing but a
# shared library: Cargo optimises at link time only what is not a Rust library too.
SHIPPED := --package aziot-daemon --package aziot-cli --package aziot-keys-provider-so
SHIPPED_LIBRARY := --package libaziot_keys --lib --crate-type cdylib
# Deadlines and back-offs that tests can scale; nothing shipped has this.
TEST_FEATURES := --features aziot-daemon/test-timing
FIRMWARE := targets/lm3s6965evb
QEMU_RUN_VERSION := 0.3.1
QEMU_RUN := $(TARGET)/tools/bin/qemu-run

export CARGO_TERM_PROGRESS_WHEN := never

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: deps ## Build everything for testing (debug, with scalable deadlines)
	cargo build --workspace --all-targets $(TEST_FEATURES)

.PHONY: release
release: deps ## Build the programs and the library to ship
	cargo build --release $(SHIPPED)
	cargo rustc --release $(SHIPPED_LIBRARY)
	cargo build --profile small --package aziot-keys-engine-so
	cp $(TARGET)/small/libaziot_key_openssl_engine_shared.so $(TARGET)/release/

.PHONY: demo
demo: release ## Show the main job, step by step, in a throw-away root
	cargo build --package aziot-tests --bin demo $(TEST_FEATURES)
	$(TARGET)/debug/demo $(TARGET)/release

.PHONY: test
test: deps ## Run all tests that need no emulated machine
	scripts/certificate-lint --install
	cargo build --workspace --all-targets $(TEST_FEATURES)
	@if cargo nextest --version >/dev/null 2>&1; then \
	    echo "cargo nextest run --workspace $(TEST_FEATURES)"; \
	    cargo nextest run --workspace $(TEST_FEATURES) --no-fail-fast; \
	else \
	    echo "cargo test --workspace --all-targets $(TEST_FEATURES)"; \
	    cargo test --workspace --all-targets $(TEST_FEATURES) --no-fail-fast; \
	fi
	cargo test --workspace --doc $(TEST_FEATURES)

.PHONY: lint
lint: deps ## Check format, lints and documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(TEST_FEATURES) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	cd tests/fuzz && cargo fmt --check
	cd tests/fuzz && CARGO_TARGET_DIR="$(abspath $(TARGET)/fuzz)" \
	    cargo clippy --locked --all-targets --no-default-features -- -D warnings

.PHONY: test-embedded
test-embedded: deps-embedded $(QEMU_RUN) ## Build the core for Cortex-M and run it on an emulated one
	scripts/thumb-build
	cd $(FIRMWARE) && cargo fmt --check
	cd $(FIRMWARE) && PATH="$(abspath $(dir $(QEMU_RUN))):$$PATH" CARGO_TARGET_DIR="$(abspath $(TARGET)/firmware)" \
	    ../../scripts/thumb-cargo thumbv7m-none-eabi test --release --locked
	@echo "code in that image, in bytes:"
	@scripts/image-size "$$(ls -t $(TARGET)/firmware/thumbv7m-none-eabi/release/deps/sign-* | grep -v '\.d$$' | head -1)"

.PHONY: test-openssl11
test-openssl11: deps ## Build for Debian 11 and test with its OpenSSL 1.1: engine, services, TLS (amd64)
	@scripts/install-deps cross
	scripts/test-openssl11

.PHONY: bench
bench: release ## Measure everything that has a goal, beside its floor (BENCH_SECONDS=5)
	scripts/install-deps bench
	scripts/build-tools >/dev/null
	cargo build --release --package aziot-tests --bin bench --bin loadgen
	$(TARGET)/release/bench

.PHONY: soak
soak: deps ## Sign 100 000 times over one login on software tokens, some 15 minutes (SOAK="--tpm 10000": fewer on the TPM)
	cargo build --workspace $(TEST_FEATURES)
	$(TARGET)/debug/soak $(SOAK)

.PHONY: fuzz
fuzz: ## Feed foreign bytes to everything that reads them, a minute for each target (FUZZ_SECONDS=60)
	scripts/install-deps build fuzz
	scripts/fuzz

.PHONY: clean
clean: ## Remove everything that was built
	cargo clean
	rm -rf $(FIRMWARE)/target

.PHONY: deps
deps: ## Install missing packages for building and testing
	@scripts/install-deps build test

.PHONY: deps-embedded
deps-embedded:
	@scripts/install-deps build embedded

# Decodes what the firmware logs and passes its exit status on.
$(QEMU_RUN): | deps-embedded
	cargo install --quiet --locked --root $(TARGET)/tools qemu-run@$(QEMU_RUN_VERSION)
