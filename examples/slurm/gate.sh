#!/bin/bash
# `pathwatch gate`, for as long as it takes: gate.sh RUN --until stop|generalized [--group G]
#
# Exit code 0: reached. 3: the run has finished without. Everything else (no server, no such run yet) is tried
# again every RETRY_SECONDS (30), at the address that PATHWATCH_ENDPOINT holds by then.
set -uo pipefail

gate=''
trap 'kill "$gate" 2>/dev/null; exit 143' TERM INT

while :; do
  if [[ -n ${PATHWATCH_ENDPOINT:-} && -s $PATHWATCH_ENDPOINT ]]; then
    PATHWATCH_SERVER=$(< "$PATHWATCH_ENDPOINT")
    export PATHWATCH_SERVER
  fi
  # In the background, so that a signal ends it at once.
  pathwatch gate "$@" &
  gate=$!
  wait "$gate"
  code=$?
  case $code in
    0 | 3) exit "$code" ;;
  esac
  sleep "${RETRY_SECONDS:-30}" &
  gate=$!
  wait "$gate"
done
