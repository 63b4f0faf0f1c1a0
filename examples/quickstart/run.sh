#!/bin/sh
# From an empty database to two migrated tenants. Run it again: nothing is left to do.
set -eu
cd "$(dirname "$0")"

# The shared tables: who the tenants are.
pricesync migrate-schemas --shared

# Two tenants with empty schemas, then all of them at once, as a deployment does it.
pricesync create-tenant --if-not-exists --no-migrate --name 'Acme Inc.' --slug acme --domain acme.example.com
pricesync create-tenant --if-not-exists --no-migrate --name 'Globex Corp.' --slug globex --domain globex.example.com
pricesync migrate-schemas --progress none -o json >run.json

# Anything left? Exit code 3 would say so.
pricesync migrate-schemas --check
pricesync list-tenants -o csv
