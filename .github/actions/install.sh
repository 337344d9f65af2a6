#!/usr/bin/env bash
# Install aprverify from the checkout that this file lies in, into a virtual environment of its own:
#
#   .github/actions/install.sh VENV
#
# PYTHON         interpreter, 3.11 or newer (default: python3)
# KEEP_TORCH     true: use the torch that PYTHON brings, and change it in no way
# PIP_ARGUMENTS  more arguments of `pip install`, split at blanks: indexes, other packages
set -euo pipefail
venv=${1:?"usage: .github/actions/install.sh VENV"}
python=${PYTHON:-python3}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
constraints=$root/constraints.txt

[[ -x $venv/bin/aprverify ]] && exit 0
if [[ ${KEEP_TORCH:-} == true ]]; then
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
