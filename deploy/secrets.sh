#!/bin/sh
# Makes the random secrets that compose.yaml mounts. What is there already is kept.
set -eu
cd "$(dirname "$0")/.."
# The outer folder lets in nobody but its owner; what is inside it must be readable for the containers' own users.
umask 022
mkdir -p secrets/app secrets/postgres
chmod 700 secrets

random() { od -An -vN32 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { [ -s "$1" ] || { printf '%s\n' "$2" >"$1" && echo "made $1"; }; }

keep secrets/postgres/superuser_password "$(random)"
keep secrets/postgres/owner_password "$(random)"
keep secrets/app/database_url "postgresql://agents:$(cat secrets/postgres/owner_password)@postgres/agents"
keep secrets/app/key_pepper "$(random)"
