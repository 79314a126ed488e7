#!/usr/bin/env bash
# Sends your receiver a message signed as Hearth signs, to try it without Hearth:
#
#     WEBHOOK_SECRET=whsec_… ./send.sh http://127.0.0.1:9000/ '{"id": "x-e1", "status": "COMPLETED"}'
set -euo pipefail
url=$1 body=$2

id="msg_$(openssl rand -hex 16)" timestamp=$(date +%s)
key=$(printf %s "${WEBHOOK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
signature=$(printf '%s.%s.%s' "$id" "$timestamp" "$body" |
    openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)
curl --fail-with-body -sS "$url" -H "Content-Type: application/json" -H "webhook-id: $id" \
    -H "webhook-timestamp: $timestamp" -H "webhook-signature: v1,$signature" --data-binary "$body"
