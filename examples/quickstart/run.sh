#!/bin/sh
# Creates two migrated tenants in an empty database. A second run changes nothing.
set -eu
cd "$(dirname "$0")"

# Creates the shared tables, which list the tenants.
pricesync migrate-schemas --shared

# Creates two tenants with empty schemas, then migrates all of them, as a deployment does.
pricesync create-tenant --if-not-exists --no-migrate --name 'Acme Inc.' --slug acme --domain acme.example.com
pricesync create-tenant --if-not-exists --no-migrate --name 'Globex Corp.' --slug globex --domain globex.example.com
pricesync migrate-schemas --progress none -o json >run.json

# Exits with 3 if migrations are pending.
pricesync migrate-schemas --check
pricesync list-tenants -o csv
