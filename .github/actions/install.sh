#!/usr/bin/env bash
# Install aprverify from the checkout that this file lies in, into a virtual environment of its own:
#
#   .github/actions/install.sh VENV
#
# PYTHON         interpreter, 3.11 or newer (default: python3)
# KEEP_TORCH     true: use the torch that PYTHON brings, and change it in no way
# PIP_ARGUMENTS  more arguments of `pip install`, split at blanks: indexes, other packages
#
# An environment that is there is kept if it was made of the same three, and else refused.
set -euo pipefail
venv=${1:?"usage: .github/actions/install.sh VENV"}
python=${PYTHON:-python3}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
constraints=$root/constraints.txt
keep=false
[[ ${KEEP_TORCH:-} != true ]] || keep=true
made_of=$(printf '%s\n' "$root" "$python" "$keep" "${PIP_ARGUMENTS:-}")
noted=$venv/aprverify-made-of

if [[ -e $noted ]]; then
  [[ $(<"$noted") != "$made_of" ]] || exit 0
  echo "$venv was made of other inputs (checkout, PYTHON, KEEP_TORCH, PIP_ARGUMENTS). Give the" \
    "actions of one job the same python, keep-torch and pip-arguments, or use two jobs." >&2
  diff "$noted" - <<<"$made_of" >&2 || true
  exit 2
fi
if [[ $keep == true ]]; then
  "$python" -m venv --system-site-packages "$venv"
  if ! torch=$("$venv/bin/python" -c 'import torch; print(torch.__version__)'); then
    echo "no torch to keep: $python has none outside of virtual environments. Name another" \
      "interpreter, or let torch be installed." >&2
    exit 2
  fi
  constraints=$venv/constraints.txt
  # With the very build pinned, pip fails where it would otherwise replace it.
  { grep -v '^torch==' "$root/constraints.txt"; echo "torch==$torch"; } >"$constraints"
else
  "$python" -m venv "$venv"
fi
read -r -d '' -a more <<<"${PIP_ARGUMENTS:-}" || true
"$venv/bin/python" -m pip install --quiet --constraint "$constraints" \
  --editable "${root}[oracle,sign]" ${more[@]+"${more[@]}"}
# Last, so that what was cut off is made again.
printf '%s\n' "$made_of" >"$noted"
