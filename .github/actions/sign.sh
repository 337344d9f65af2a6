#!/usr/bin/env bash
# Sign a run with the key in $SIGNING_KEY, which touches the disk only for as long as that takes:
#
#   SIGNING_KEY=... .github/actions/sign.sh RUN
#
# IDENTITY, TRUSTED_KEYS, SUITE  who signs, the file of trusted keys, the suite; each may be empty
set -euo pipefail
run=${1:?"usage: .github/actions/sign.sh RUN"}
[[ -e $run/run.jsonl ]] || exit 0
key=$(mktemp "${RUNNER_TEMP:-/tmp}/signing-XXXXXX")
trap 'rm -f "$key"' EXIT
printf '%s\n' "$SIGNING_KEY" >"$key"
unset SIGNING_KEY
arguments=(--key "$key")
[[ -z ${IDENTITY:-} ]] || arguments+=(--identity "$IDENTITY")
[[ -z ${TRUSTED_KEYS:-} ]] || arguments+=(--trusted "$TRUSTED_KEYS")
aprverify --suite "${SUITE:-bundled}" sign "$run" "${arguments[@]}"
