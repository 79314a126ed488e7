#!/usr/bin/env bash
# Says whether a webhook is Hearth's, by openssl alone:
#
#     WEBHOOK_SECRET=whsec_… ./verify.sh HEADERS BODY
#
# HEADERS is a file with a header a line (name: value), BODY one with the body's bytes as they came. While it runs the key
# is among openssl's arguments, where other users of the machine may see it.
set -euo pipefail
headers=$1 body=$2

refuse() {
    echo "Not verified: $1" >&2
    exit 1
}

header() {
    grep -i -m 1 "^$1:" "$headers" | sed 's/^[^:]*: *//' | tr -d '\r'
}

id=$(header webhook-id) && signatures=$(header webhook-signature) || refuse "it is not signed"
timestamp=$(header webhook-timestamp) || refuse "it has no time"
[[ $timestamp =~ ^[0-9]{1,12}$ ]] || refuse "it has no time"
age=$(($(date +%s) - 10#$timestamp))
((age >= -300 && age <= 300)) || refuse "it is too old, or too new"

key=$(printf %s "${WEBHOOK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
expected=$({ printf '%s.%s.' "$id" "$timestamp" && cat "$body"; } |
    openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)
# There are two while your secret is rolled.
[[ " $signatures " == *" v1,$expected "* ]] || refuse "no signature matches"
echo "Verified: $id"
