#!/bin/bash
# `pathwatch gate`, for as long as it takes: gate.sh RUN --until stop|generalized [--group G]
#
# Exit code 0: reached. 3: the run has finished without. Everything else (no server, no such run yet) is tried
# again every RETRY_SECONDS (30), where PATHWATCH_SERVER says that the server is by then.
set -uo pipefail

gate=''
trap 'kill "$gate" 2>/dev/null; exit 143' TERM INT

while :; do
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
