#!/bin/sh
# Dump databases of one PostgreSQL server into DIRECTORY/<time>/, one after the other in the order given, with checksums.
#
#   backup.sh DIRECTORY [DATABASE ...]        default: quill hapi ehrbase
#
# The connection is libpq's: PGHOST, PGPORT, PGUSER, and PGPASSWORD or PGPASSFILE. Each dump is one committed state and
# holds up nobody. Quill's database goes first: the record stores are then at least as new as what Quill says is in them.
set -eu
umask 077

[ $# -ge 1 ] || { echo "usage: backup.sh DIRECTORY [DATABASE ...]" >&2; exit 2; }
directory=$1
shift
[ $# -gt 0 ] || set -- quill hapi ehrbase

stamp=$(date -u +%Y%m%dT%H%M%SZ)
[ ! -e "$directory/$stamp" ] || { echo "$directory/$stamp is there already" >&2; exit 1; }
mkdir -p "$directory"
draft=$(mktemp -d "$directory/.draft.XXXXXX")
trap 'rm -rf "$draft"' EXIT

for database in "$@"; do
  pg_dump --format custom --compress 6 --no-password --dbname "$database" --file "$draft/$database.dump"
done
(cd "$draft" && sha256sum -- *.dump >SHA256SUMS)
sync -f "$draft" 2>/dev/null || sync
# The name appears only when everything is in it.
mv "$draft" "$directory/$stamp"
trap - EXIT
echo "$directory/$stamp"
