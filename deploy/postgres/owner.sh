#!/bin/sh
# The first start of the database: the owner of the tables, who is not a superuser, and the extension, which needs one.
set -eu
psql --no-psqlrc -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" \
  -v password="$(cat "${OWNER_PASSWORD_FILE:-/run/secrets/owner_password}")" <<'SQL'
create role agents login createrole password :'password';
alter database agents owner to agents;
alter schema public owner to agents;
create extension vector;
SQL
