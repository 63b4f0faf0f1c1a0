#!/bin/sh
# Reports line coverage of the code that changes databases.
#
#   scripts/coverage.sh            runs all tests and prints the table
#   scripts/coverage.sh --report   prints the table again, with the lines that no test ran
#
# Counts the lines of src/postgres and src/service/fleet.rs, without unit tests, that a test or a
# program started by a test ran. The instrumented build is in target/llvm-cov-target. Installs
# cargo-llvm-cov and LLVM's tools if they are missing. Exits with 1 if a test failed, after printing
# the table.
set -eu
cd "$(dirname "$0")/.."

say() {
    echo "coverage: $*" >&2
}

# Finds LLVM's tools, from rustup or the system (with Debian's names). They must not be older than
# the compiler.
find_llvm() {
    if [ -n "${LLVM_COV:-}" ] && [ -n "${LLVM_PROFDATA:-}" ]; then
        return
    fi
    host=$(rustc -vV | sed -n 's/^host: //p')
    ours=$(rustc --print sysroot)/lib/rustlib/$host/bin
    if [ ! -x "$ours/llvm-cov" ] && command -v rustup >/dev/null 2>&1; then
        rustup component add llvm-tools >&2 || say "rustup has no llvm-tools for this compiler"
    fi
    if [ -x "$ours/llvm-cov" ]; then
        return
    fi
    oldest=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
    for major in $(seq "$oldest" $((oldest + 5))); do
        if command -v "llvm-cov-$major" >/dev/null 2>&1; then
            export LLVM_COV="llvm-cov-$major" LLVM_PROFDATA="llvm-profdata-$major"
            return
        fi
    done
    say "LLVM $oldest or newer is missing: rustup component add llvm-tools, or apt-get install llvm-$oldest"
    exit 1
}

# Converts lcov records to the table, worst file last; "yes" adds the lines that were not run.
table() {
    awk -F '[:,]' -v root="$PWD/" -v lines="$1" '
        $1 == "SF" {
            file = substr($2, length(root) + 1)
            wanted = file ~ /^src\/(postgres\/.*|service\/fleet)\.rs$/ && file !~ /\/tests\.rs$/
            if (!wanted) next
            # Unit tests are at the end of a file.
            end = number = 0
            while ((getline text < $2) > 0) {
                number++
                if (text == "#[cfg(test)]") { end = number; break }
            }
            close($2)
            all[file] += 0
        }
        $1 == "DA" && wanted && (!end || $2 < end) {
            all[file]++
            if ($3 > 0) run[file]++
            else missed[file] = missed[file] " " $2
        }
        END {
            for (file in all) {
                if (!all[file]) continue
                printf "%.1f|%s|%d|%d|%s\n", 100 * run[file] / all[file], file, all[file], run[file], missed[file]
            }
        }
    ' "$lcov" | LC_ALL=C sort -t '|' -k 1,1nr -k 2,2 | awk -F '|' -v lines="$1" '
        BEGIN { printf "%-44s %7s %7s %7s\n", "file", "lines", "covered", "%" }
        {
            printf "%-44s %7d %7d %7.1f\n", $2, $3, $4, $1
            all += $3
            run += $4
            if ($5 != "") missed = missed $2 ":" $5 "\n"
        }
        END {
            if (!all) exit 1
            printf "%-44s %7d %7d %7.1f\n", "total", all, run, 100 * run / all
            if (lines == "yes") printf "\nnot run\n%s", missed
        }
    '
}

lcov=target/llvm-cov-target/pricesync.lcov
if [ "${1:-}" = --report ]; then
    [ -f "$lcov" ] || { say "no report yet: run scripts/coverage.sh"; exit 1; }
    table yes
    exit
fi

find_llvm
if ! cargo llvm-cov --version >/dev/null 2>&1; then
    cargo install --locked cargo-llvm-cov
fi

# A separate directory, because other flags would rebuild everything in target/debug.
export CARGO_TARGET_DIR="$PWD/target/llvm-cov-target"
# Continuous mode (%c) writes counters directly to the file, so that programs killed by a test
# count too. It requires counters that can be relocated when the program starts.
export LLVM_PROFILE_FILE_NAME='pricesync-%p-%c%m.profraw'
export RUSTFLAGS="${RUSTFLAGS:-} -Cllvm-args=-runtime-counter-relocation"
# `cargo llvm-cov test` does not build the examples, which have tests.
eval "$(cargo llvm-cov show-env --export-prefix)"
cargo llvm-cov clean --profraw-only
status=0
cargo test --no-fail-fast </dev/null >&2 || status=1
cargo llvm-cov report --lcov --output-path "$lcov" >&2
cargo llvm-cov clean --profraw-only
table no
exit "$status"
