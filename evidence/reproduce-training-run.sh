#!/usr/bin/env bash
# Reproduce the committed training run on a machine with one CUDA GPU:
#
#   evidence/reproduce-training-run.sh OUT TOKENIZER STEPS "SOURCE ..." "HELDOUT ..." [QWEN2_GGUF]
#
# Prepares a dataset from the Python files under the SOURCE folders, with the HELDOUT folders, whose
# files the model never sees, as held-out text; trains the 370M from scratch for STEPS steps of
# 8 x 2048 tokens, in three epochs; and, where a Qwen2-0.5B is given as GGUF, fine-tunes it for a
# hundred steps on the same text in its own vocabulary. OUT receives dataset/, run/ and finetune/, with
# their logs, curves and outcomes.
set -euo pipefail
usage='usage: evidence/reproduce-training-run.sh OUT TOKENIZER STEPS "SOURCE ..." "HELDOUT ..." [QWEN2_GGUF]'
out=${1:?"$usage"} tokenizer=${2:?"$usage"} steps=${3:?"$usage"}
read -ra sources <<< "${4:?"$usage"}"
read -ra heldout <<< "${5:?"$usage"}"
qwen=${6:-}
cd "$(dirname "$0")/.."
aprtrain=("${PYTHON:-python3}" -m trainer)

prepare() { # OUT TOKENIZER SOURCE...
    "${aprtrain[@]}" prepare "${@:3}" --tokenizer "$2" --out "$1" --include '*.py' \
        --heldout "${heldout[@]}"
}

prepare "$out/dataset" "$tokenizer" "${sources[@]}"
"${aprtrain[@]}" pretrain --mode from-scratch --device cuda --dataset "$out/dataset" \
    --tokenizer "$tokenizer" --run-dir "$out/run" --num-steps "$steps" --steps-per-epoch $((steps / 3)) \
    --batch-size 8 --seq-length 2048 --lr 6e-4 --warmup 300 --val-tokens 500000 \
    --embed-tokenizer --no-progress --json
if [ -n "$qwen" ]; then
    prepare "$out/dataset-qwen2" "$qwen" "${sources[0]}"
    "${aprtrain[@]}" pretrain --mode finetune --init "$qwen" --device cuda \
        --dataset "$out/dataset-qwen2" --tokenizer "$qwen" --run-dir "$out/finetune" \
        --num-steps 100 --warmup 10 --batch-size 4 --seq-length 1024 --val-tokens 100000 \
        --no-progress --json
fi
