#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fetch the sources of lwIP and BearSSL from Debian's archive and unpack them, patched, into FOLDER (build/sources).
# What is there in the right version stays. Needs dpkg-dev; neither root nor any change to the machine's own apt.
# Usage: fetch_sources.sh [FOLDER]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
to=${1:-$here/../build/sources}
mirror=${FEDMOTE_DEBIAN_MIRROR:-http://deb.debian.org/debian}
suite=bookworm
lwip=2.1.3+dfsg1-2
bearssl=0.6+dfsg.1-3

# Debian's key is in debian-archive-keyring, which other distributions have as a package too.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
for need in apt-get dpkg-source; do
  command -v $need >/dev/null || { echo "fetch_sources.sh needs $need: apt-get install dpkg-dev" >&2; exit 1; }
done
test -f $keyring || { echo "fetch_sources.sh needs $keyring: apt-get install debian-archive-keyring" >&2; exit 1; }

mkdir -p "$to"
to=$(cd "$to" && pwd)

# Is NAME there in VERSION? The stamp is written last.
there() { test "$(cat "$to/$1/.version" 2>/dev/null)" = "$2"; }

if there lwip $lwip && there bearssl $bearssl; then
  exit 0
fi

work=$(mktemp -d "$to/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/parts"
chmod 755 "$work"
printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$suite" "$keyring" \
  >"$work/parts/debian.sources"

# An apt of its own: its lists and list file lie in $work, so that the machine's stay as they are.
apt() {
  (cd "$work" && apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/parts" \
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" \
    -o Acquire::Retries=3 "$@")
}

# Signatures go from the archive's key over Release and Sources to the checksums of the files; apt checks them all.
fetch() {
  there "$1" "$2" && return
  apt source --download-only "$1=$2"
  rm -rf "${to:?}/$1"
  dpkg-source --no-check -x "$work/$1_$2.dsc" "$work/$1" >/dev/null
  echo "$2" >"$work/$1/.version"
  mv "$work/$1" "$to/$1"
  echo "$1 $2 is in $to/$1"
}

apt update
fetch lwip $lwip
fetch bearssl $bearssl
