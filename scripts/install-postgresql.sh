#!/bin/sh
# Installs PostgreSQL's server programs and a C compiler if they are missing.
#
# Never starts a server: pricesync runs its own, in a folder, without a port. Requires root or sudo.
set -eu

# Tests whether a directory contains the two programs that pricesync requires.
is_bin() {
    [ -x "$1/initdb" ] && [ -x "$1/postgres" ]
}

# Prints the directory of the server programs, in the search order of pricesync.
find_postgresql() {
    if [ -n "${PRICESYNC_PG_BIN:-}" ]; then
        is_bin "$PRICESYNC_PG_BIN" && echo "$PRICESYNC_PG_BIN"
        return
    fi
    old_ifs=$IFS
    IFS=:
    for dir in $PATH; do
        if is_bin "$dir"; then
            IFS=$old_ifs
            echo "$dir"
            return
        fi
    done
    IFS=$old_ifs
    if command -v pg_config >/dev/null 2>&1; then
        dir=$(pg_config --bindir 2>/dev/null || true)
        if [ -n "$dir" ] && is_bin "$dir"; then
            echo "$dir"
            return
        fi
    fi
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
        /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin \
        /Applications/Postgres.app/Contents/Versions/*/bin; do
        if is_bin "$dir"; then
            echo "$dir"
            return
        fi
    done
    return 1
}

say() {
    echo "install-postgresql: $*" >&2
}

fail() {
    say "$*"
    exit 1
}

# Runs a command as root.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        # Without a terminal, sudo must not prompt for a password.
        sudo -n "$@"
    fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "$@" </dev/null >&2
}

# Installs PostgreSQL without the server that Debian's package creates and starts on port 5432.
# The configuration is restored, so that later installations behave as usual.
apt_install_postgresql() {
    apt_install postgresql-common
    conf=/etc/postgresql-common/createcluster.conf
    kept=$(mktemp)
    cp "$conf" "$kept"
    trap 'as_root cp "$kept" "$conf"; rm -f "$kept"' EXIT
    trap 'exit 130' INT TERM HUP
    changed=$(mktemp)
    { grep -v '^[[:space:]#]*create_main_cluster' "$kept" || true; echo 'create_main_cluster = false'; } >"$changed"
    as_root cp "$changed" "$conf"
    rm -f "$changed"
    apt_install postgresql
}

want_postgresql=no
want_compiler=no
want_pooler=no
if found=$(find_postgresql); then
    say "PostgreSQL: $found"
elif [ -n "${PRICESYNC_PG_BIN:-}" ]; then
    fail "PRICESYNC_PG_BIN is $PRICESYNC_PG_BIN, which has no initdb and postgres; correct or unset it"
else
    want_postgresql=yes
fi
if ! command -v cc >/dev/null 2>&1; then
    want_compiler=yes
fi
if ! command -v cargo >/dev/null 2>&1; then
    fail "cargo is missing: install Rust from https://rustup.rs and run this again"
fi
# CI requires PgBouncer; elsewhere the tests of poolers are skipped without it. It is not installed
# there, because Debian's package starts a service.
if [ -n "${CI:-}" ] && ! command -v pgbouncer >/dev/null 2>&1; then
    want_pooler=yes
fi
if [ "$want_postgresql$want_compiler$want_pooler" = nonono ]; then
    exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
    say "PostgreSQL's server programs or a C compiler are missing; install them and run this again:"
    say "  macOS:          brew install postgresql@17 && xcode-select --install"
    say "  Fedora, RHEL:   sudo dnf install postgresql-server gcc"
    say "  Alpine:         apk add postgresql postgresql-client build-base"
    say "  elsewhere:      set PRICESYNC_PG_BIN to the directory of initdb and postgres"
    exit 1
fi
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null 2>&1; then
    fail "sudo is missing; run as root: apt-get install postgresql build-essential"
fi

say "installing with apt-get: PostgreSQL $want_postgresql, C compiler $want_compiler, PgBouncer $want_pooler"
as_root apt-get update </dev/null >&2 || say "apt-get update failed; continuing with the current package lists"
if [ "$want_compiler" = yes ]; then
    apt_install build-essential
fi
if [ "$want_pooler" = yes ]; then
    apt_install pgbouncer
fi
if [ "$want_postgresql" = yes ]; then
    apt_install_postgresql
    found=$(find_postgresql) || fail "initdb and postgres are still missing after the installation"
    say "PostgreSQL: $found"
fi
