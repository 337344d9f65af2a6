#!/usr/bin/env bash
# The views of a run for a job: page, JUnit, statement, summary, annotations. One that fails keeps
# none of the others from being written.
#
#   .github/actions/views.sh RUN FOLDER
#
# ANNOTATE=true also prints annotations. Exit status: that of the last view that failed.
set -uo pipefail
run=${1:?"usage: .github/actions/views.sh RUN FOLDER"}
views=${2:?"usage: .github/actions/views.sh RUN FOLDER"}
if [[ ! -e $run/run.jsonl ]]; then
  echo "::error title=no run::There is no run to show; the steps before say why."
  exit 0
fi
mkdir -p "$views"
status=0
aprverify report "$run" --html "$views/page.html" || status=$?
aprverify report "$run" --junit "$views/junit.xml" || status=$?
aprverify report "$run" --in-toto "$views/statement.json" || status=$?
aprverify report "$run" --job-summary "$views/summary.md" || status=$?
if [[ -e $views/summary.md ]]; then
  cat "$views/summary.md" >>"$GITHUB_STEP_SUMMARY" || status=$?
fi
if [[ ${ANNOTATE:-} == true ]]; then
  aprverify report "$run" --annotations || status=$?
fi
exit "$status"
