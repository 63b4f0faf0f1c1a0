# The shortest way in. Everything here is plain cargo and one script.

.PHONY: demo test django properties test-matrix torture lint picture bench coverage deb needs

# A fleet on a private server: created, migrated with bars, listed.
demo: needs
	cargo build
	cargo run --quiet -- demo
	@echo 'pricesync is target/debug/pricesync; "cargo install --path ." puts it on the PATH' >&2

# Every test, on a private server that is gone afterwards.
test: needs
	cargo test

# What holds for any name, folder and history, on a million names and a hundred thousand of
# the rest; "make test" tries a share of them.
properties:
	PRICESYNC_PROPERTIES=all cargo test --test properties -- --nocapture

# Every test on PostgreSQL 14 to 18, whose programs are fetched into target/postgresql.
test-matrix: needs
	scripts/test-matrix.sh

# Cuts, kills, crashes and exhausted servers by the thousand, and a table of what came of them;
# some ten minutes. make torture ARGS=--help tells how to choose and how to repeat.
torture: needs
	cargo test --test torture -- --long $(ARGS)

# A site of django-tenants over our database and pricesync over its; installs it from PyPI into
# target/django.
django: needs
	cargo test --test it django -- --ignored --nocapture

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --quiet

# Draws docs/run.svg anew from a real run.
picture: needs
	cargo build
	scripts/picture

# How fast it is, beside the raw limit of the server and beside other tools, on a private
# server. make bench ARGS=--quick takes some three minutes; ARGS=--help tells the rest.
bench: needs
	cargo bench --bench fleet -- $(ARGS)

# Which lines of the code that changes databases the tests run. make coverage ARGS=--report
# prints it again, with the lines that none ran.
coverage: needs
	@scripts/coverage.sh $(ARGS)

# The Debian package, in target/debian, with manual pages and completions that the program wrote.
# cargo-deb is installed into target/tools where it is missing.
deb: export PATH := $(CURDIR)/target/tools/bin:$(PATH)
deb: needs
	command -v cargo-deb >/dev/null || cargo install --locked --root target/tools cargo-deb
	cargo build --release --locked
	rm -rf target/deb
	target/release/pricesync man --out target/deb/man
	for shell in bash zsh fish; do target/release/pricesync completions $$shell >target/deb/pricesync.$$shell || exit; done
	cargo deb --no-build

# PostgreSQL's server programs and a C compiler; installed only where they are missing.
needs:
	@scripts/install-postgresql.sh
