#!/bin/bash
# Submits an evaluation of the best checkpoint once a run has generalized: evaluate.sh RUN evaluate.sbatch
#
# The job gets the tag of the checkpoint as its argument. Exit code 3: the run has finished without
# generalizing, nothing was submitted. 2: it has generalized, but no checkpoint with a tag was judged.
set -euo pipefail

run=$1 job=$2
"$(dirname "$0")/gate.sh" "$run" --until generalized
best=$(pathwatch checkpoints "$run" --limit 1 --json | sed -nE 's/.*"tag": "([^"]*)".*/\1/p')
if [[ -z $best ]]; then
  echo "$run has generalized, but has no judged checkpoint with a tag: nothing is submitted" >&2
  exit 2
fi
sbatch "$job" "$best"
