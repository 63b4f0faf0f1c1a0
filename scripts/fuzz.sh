#!/bin/sh
# Fuzzes each target for SECONDS_EACH seconds (default 60), beginning with a corpus made of the SQL
# in this repository. TARGETS selects targets. Needs cargo-fuzz, which is installed in target/tools
# if it is missing, and the stable toolchain.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/target/tools/bin:$PATH"
# The sanitizer's and coverage flags are unstable; the code under test forbids unsafe code, so no
# sanitizer is used.
export RUSTC_BOOTSTRAP=1
command -v cargo-fuzz >/dev/null || cargo install --locked --root target/tools cargo-fuzz

# The seeds of the property tests.
cargo test --quiet --test properties -- --ignored --exact mutations::write_seeds >/dev/null
for target in ${TARGETS:-$(cargo fuzz list)}; do
    corpus=fuzz/corpus/$target
    mkdir -p "$corpus"
    case $target in
    sql_text)
        find migrations tests/hostile examples -name '*.sql' -exec cp {} "$corpus" \;
        # One seed for each SQL example of the documentation.
        awk -v dir="$corpus" '/^```/ { on = /sql/; n += on; next } on { print > (dir "/doc" n) }' \
            README.md docs/*.md
        ;;
    directives)
        grep -rhoE 'pricesync:.*' migrations tests/it/*.rs README.md docs/*.md |
            awk -v dir="$corpus" '{ sub(/pricesync:/, ""); print > (dir "/" NR) }'
        ;;
    file_names)
        find migrations tests/hostile -name '*.sql' |
            awk -F/ -v dir="$corpus" '{ printf "%s", $NF > (dir "/" NR) }'
        ;;
    connection_strings)
        grep -rhoE 'postgres(ql)?://[^" `]*' README.md docs/*.md tests/it/*.rs |
            awk -v dir="$corpus" '{ printf "%s", $0 > (dir "/" NR) }'
        ;;
    esac
    cargo fuzz run -s none "$target" -- -max_total_time="${SECONDS_EACH:-60}" -print_final_stats=1
done
