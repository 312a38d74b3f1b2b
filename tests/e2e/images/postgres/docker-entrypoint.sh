#!/bin/bash
# Creates the database at the first start, then runs the server.
set -euo pipefail
if [ "${1:-}" != postgres ]; then exec "$@"; fi
sockets=/var/run/postgresql
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?is not set: the password of POSTGRES_USER}"
    user=${POSTGRES_USER:-postgres}
    # In a temporary folder, moved when it is complete: an interrupted start begins again.
    fresh=$PGDATA.new
    rm -rf "$fresh" && mkdir -p "$fresh"
    initdb --pgdata="$fresh" --username="$user" --pwfile=<(printf '%s' "$POSTGRES_PASSWORD") \
        --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8
    echo 'host all all all scram-sha-256' >> "$fresh/pg_hba.conf"
    if [ "${POSTGRES_DB:-$user}" != postgres ]; then
        pg_ctl --pgdata="$fresh" --wait --options="-c listen_addresses= -c unix_socket_directories=$sockets" start
        createdb --host="$sockets" --username="$user" --maintenance-db=postgres "${POSTGRES_DB:-$user}"
        pg_ctl --pgdata="$fresh" --wait --mode=fast stop
    fi
    mv "$fresh" "$PGDATA"
fi
exec "$@" -c listen_addresses='*' -c unix_socket_directories="$sockets"
