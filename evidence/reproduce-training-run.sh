#!/usr/bin/env bash
# Reproduce the committed training run on a machine with one CUDA GPU:
#
#   evidence/reproduce-training-run.sh OUT TOKENIZER STEPS "SOURCE ..." "HELDOUT ..." [QWEN2_GGUF]
#
# Prepares a dataset from the Python files under the SOURCE folders, with the HELDOUT folders, whose
# files the model never sees, as held-out text; trains the 370M from scratch for STEPS steps of
# 8 x 2048 tokens, in three epochs; and, where a Qwen2-0.5B is given as GGUF, fine-tunes it for a
# hundred steps on the same text in its own vocabulary. OUT receives dataset/, run/ and finetune/, with
# their logs, curves and outcomes. A run there that has ended is left as it is, so that the script can be
# started again.
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

pretrain() { # MODE RUN_DIR OPTION...
    [ -e "$2/outcome.json" ] || "${aprtrain[@]}" pretrain --mode "$1" --run-dir "$2" --device cuda \
        --no-progress --json "${@:3}"
}

prepare "$out/dataset" "$tokenizer" "${sources[@]}"
pretrain from-scratch "$out/run" --dataset "$out/dataset" --tokenizer "$tokenizer" \
    --num-steps "$steps" --steps-per-epoch $((steps / 3)) --batch-size 8 --seq-length 2048 \
    --lr 6e-4 --warmup 300 --val-tokens 500000 --embed-tokenizer
if [ -n "$qwen" ]; then
    prepare "$out/dataset-qwen2" "$qwen" "${sources[0]}"
    pretrain finetune "$out/finetune" --init "$qwen" --dataset "$out/dataset-qwen2" \
        --tokenizer "$qwen" --num-steps 100 --warmup 10 --batch-size 4 --seq-length 1024 \
        --val-tokens 100000
fi
