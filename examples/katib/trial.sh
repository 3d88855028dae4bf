#!/bin/sh
# The command of a trial's container: trial.sh COMMAND [ARGUMENT]...
#
# Prints `pathwatch_stop=1` once pathwatch tells the run to stop, for Katib's metrics collector to end the trial
# by. Server and run are those of PATHWATCH_SERVER and PATHWATCH_RUN, as in the training itself.
(
  while :; do
    code=0
    pathwatch gate "$PATHWATCH_RUN" --until stop || code=$?
    case $code in
      0) echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) pathwatch_stop=1" && exit ;;
      3) exit ;; # finished without
    esac
    # No server, or no such run yet.
    sleep "${RETRY_SECONDS:-30}"
  done
) &
# Katib ends the only child of the container's first process, which has to be the training.
exec "$@"
