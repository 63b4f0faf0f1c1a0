#!/bin/sh
# Downloads the migrations of packages into target/real-sets, one folder a set, for "make test-real":
# the job queues graphile-worker (npm), procrastinate (PyPI) and sqlxmq (crates.io), and the server of
# atuin (crates.io), in pinned versions.
set -eu
cd "$(dirname "$0")/.."
sets=$PWD/target/real-sets

# Prepares $sets/$1.new for a download, unless the set is there already.
missing() {
    [ ! -d "$sets/$1" ] || return 1
    rm -rf "$sets/$1.new" "$sets/$1.download"
    mkdir -p "$sets/$1.new" "$sets/$1.download"
}

finish() {
    mv "$sets/$1.new" "$sets/$1"
    rm -rf "$sets/$1.download"
}

checked() {
    echo "$1  $2" | sha256sum --check --quiet >&2
}

if missing graphile-worker; then
    download=$sets/graphile-worker.download
    archive=$download/$(npm pack --silent --pack-destination "$download" graphile-worker@0.17.3)
    checked e856732cba70f43083a2254dd79e5a659be80c2429bf922e6fa2acf78e6e52ea "$archive"
    tar -xzf "$archive" -C "$download"
    for file in "$download"/package/sql/*.sql; do
        # The package puts the name of its own schema into the files.
        sed 's/:GRAPHILE_WORKER_SCHEMA\.//g' "$file" >"$sets/graphile-worker.new/${file##*/}"
    done
    finish graphile-worker
fi

if missing procrastinate; then
    download=$sets/procrastinate.download
    python3 -m pip download -q --disable-pip-version-check --no-deps -d "$download" procrastinate==3.10.0
    archive=$download/procrastinate-3.10.0-py3-none-any.whl
    checked 949ad25b4377c30e03a9d0e053d15dfa47ef02b3f12ae8a7f3254686183c152c "$archive"
    python3 -m zipfile -e "$archive" "$download"
    cp "$download"/procrastinate/sql/migrations/*.sql "$sets/procrastinate.new"
    finish procrastinate
fi

# Copies the migrations of a crate in this version. "cargo info" downloads and unpacks the crate alone.
crate() {
    missing "$1" || return 0
    cargo info --quiet "$1@$2" >/dev/null 2>&1
    for file in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$1-$2"/migrations/*.sql; do
        cp "$file" "$sets/$1.new"
    done
    finish "$1"
}

crate sqlxmq 0.6.0
crate atuin-server-postgres 18.20.1
