#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make an authority of your own and a certificate of the broker, for trying TLS out: FOLDER gets ca.pem for the firmware,
# broker.pem and broker.key for mosquitto, ca.key for nobody. What is there stays.
# Usage: make_certificates.sh FOLDER NAME
set -eu
test $# -eq 2 || { sed -n '3,5s/^# //p' "$0" >&2; exit 1; }
mkdir -p "$1"
cd "$1"
new="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256"
test -f ca.pem || openssl req -x509 $new -days 3650 -subj "/CN=fedmote test authority" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem
test -f broker.pem || {
  openssl req $new -subj "/CN=$2" -keyout broker.key -out broker.csr
  printf 'subjectAltName=DNS:%s\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n' "$2" >broker.ext
  openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -sha256 -extfile broker.ext \
    -out broker.pem
}
