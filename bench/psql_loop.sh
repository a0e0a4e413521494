#!/bin/sh
# What teams write by hand: read the history once, then psql for each pending file.
#
#     psql_loop.sh PSQL FOLDER
set -eu
psql=$1 folder=$2
"$psql" -XqAt -c "
    SET client_min_messages = warning;
    CREATE TABLE IF NOT EXISTS public.schema_migrations (version varchar(255) PRIMARY KEY);
    SELECT version FROM public.schema_migrations" >"${TMPDIR:-/tmp}/psql_loop.$$"
trap 'rm -f "${TMPDIR:-/tmp}/psql_loop.$$"' EXIT
for file in $(ls "$folder" | grep -vxFf "${TMPDIR:-/tmp}/psql_loop.$$"); do
    "$psql" -Xq -1 -v ON_ERROR_STOP=1 -f "$folder/$file" \
        -c "INSERT INTO public.schema_migrations VALUES ('$file')"
done
