#!/bin/sh
# Restore what backup.sh wrote into databases that exist and are empty; each comes back whole or not at all.
#
#   restore.sh DIRECTORY/<time> [DATABASE ...]        default: every dump there
#
# The connection is libpq's, as in backup.sh; the user must be allowed to make what the dumps hold (EHRbase's holds
# extensions). Stop Quill and the record stores first, and run `quill reconcile` before people come back.
set -eu

[ $# -ge 1 ] || { echo "usage: restore.sh DIRECTORY [DATABASE ...]" >&2; exit 2; }
directory=$1
shift
(cd "$directory" && sha256sum --check --quiet SHA256SUMS) || { echo "A dump is not what was written." >&2; exit 1; }
if [ $# -eq 0 ]; then
  for dump in "$directory"/*.dump; do
    set -- "$@" "$(basename "$dump" .dump)"
  done
fi

tables="SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'"
for database in "$@"; do
  [ -f "$directory/$database.dump" ] || { echo "There is no dump of $database." >&2; exit 1; }
  found=$(psql --no-password --dbname "$database" --no-psqlrc --tuples-only --no-align --command "$tables")
  [ "$found" = 0 ] || { echo "The database $database is not empty ($found tables)." >&2; exit 1; }
done
for database in "$@"; do
  pg_restore --no-password --exit-on-error --single-transaction --dbname "$database" "$directory/$database.dump"
  echo "restored $database"
done
