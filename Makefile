# Shortcuts for cargo and the scripts in scripts/.

.PHONY: demo test test-real django properties test-matrix test-under-load torture fuzz lint picture bench coverage deb needs

# Creates, migrates and lists a sample fleet on a private server.
demo: needs
	cargo build
	cargo run --quiet -- demo
	@echo 'pricesync is target/debug/pricesync; "cargo install --path ." puts it on the PATH' >&2

# Runs every test on a private server, which is deleted afterwards.
test: needs
	cargo test

# Property tests with a million names and 100,000 folders and histories; "make test" uses fewer.
properties:
	PRICESYNC_PROPERTIES=all cargo test --test properties -- --nocapture

# Runs every test on PostgreSQL 14 to 18, downloaded into target/postgresql.
test-matrix: needs
	scripts/test-matrix.sh

# Runs the tests beside eight busy processes for each core, to find those that depend on speed.
test-under-load: needs
	scripts/test-under-load.sh

# Cuts, kills and exhausts servers thousands of times and prints a table of the outcomes; about ten
# minutes. make torture ARGS=--help lists the options, such as --seed to repeat a run.
torture: needs
	cargo test --test torture -- --long $(ARGS)

# Fuzzes each reader of foreign input for a minute. SECONDS_EACH=1800 takes longer, TARGETS=sql_text
# selects targets.
fuzz: needs
	scripts/fuzz.sh

# Tests both directions with django-tenants, which it installs from PyPI into target/django.
django: needs
	cargo test --test it django -- --ignored --nocapture

# Runs the migration sets of other projects, downloaded into target/real-sets, as those of tenants.
# PRICESYNC_REAL_SETS=DIR adds source trees, one folder a set.
test-real: needs
	scripts/real-sets.sh
	cargo test --test it real_sets -- --ignored --nocapture

# Checks formatting, clippy and the documentation.
lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features --lib --examples -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --quiet

# Redraws docs/run.svg from a real run.
picture: needs
	cargo build
	scripts/picture

# Measures against the raw limit of the server and other tools, on a private server. ARGS=--quick
# takes about three minutes; ARGS=--help lists the options.
bench: needs
	cargo bench --bench fleet -- $(ARGS)

# Reports line coverage of the code that changes databases. ARGS=--report prints the last report
# again, with the lines that no test ran.
coverage: needs
	@scripts/coverage.sh $(ARGS)

# Builds the Debian package in target/debian, with generated manual pages and completions. Installs
# cargo-deb into target/tools if it is missing.
deb: export PATH := $(CURDIR)/target/tools/bin:$(PATH)
deb: needs
	command -v cargo-deb >/dev/null || cargo install --locked --root target/tools cargo-deb
	cargo build --release --locked
	rm -rf target/deb
	target/release/pricesync man --out target/deb/man
	for shell in bash zsh fish; do target/release/pricesync completions $$shell >target/deb/pricesync.$$shell || exit; done
	cargo deb --no-build

# Installs PostgreSQL's server programs and a C compiler if they are missing.
needs:
	@scripts/install-postgresql.sh
