"""Where each planted defect really is, so that what localizing names can be scored.

Written from the defects' code, by defect: a regular expression for the place and one for the words.
A place is the operator that comes first: in the first layer for a fault of every layer, in the last
for one that only the backward pass has.
"""

from __future__ import annotations

MODEL_TESTS = (
    "FALSIFY-CUDA-FORWARD-PARITY-001.float32",
    "FALSIFY-CUDA-FORWARD-PARITY-001.operators",
)

_FIRST_NORM = r"layers\.0\.input_layernorm"
_FIRST_ROPE = r"layers\.0\.self_attn\.rope"
_FIRST_ATTENTION = r"layers\.0\.self_attn\.sdpa"
_FIRST_GATE = r"layers\.0\.mlp\.gate"
_LAST_ATTENTION = r"layers\.2\.self_attn\.sdpa"

MODEL: dict[str, tuple[str, str]] = {
    "drop-q-bias-one": (r"layers\.2\.self_attn\.q_proj", "bias not added"),
    "drop-k-bias-one": (r"layers\.2\.self_attn\.k_proj", "bias not added"),
    "drop-v-bias-one": (r"layers\.2\.self_attn\.v_proj", "bias not added"),
    "drop-q-bias-all": (r"layers\.0\.self_attn\.q_proj", "bias not added"),
    "drop-k-bias-all": (r"layers\.0\.self_attn\.k_proj", "bias not added"),
    "drop-v-bias-all": (r"layers\.0\.self_attn\.v_proj", "bias not added"),
    "bias-never-built": (r"layers\.0\.self_attn\.q_proj", "has no bias"),
    "bias-on-llama": (r"layers\.0\.self_attn\.(q|o)_proj", "has a bias not asked for"),
    "bias-configuration-inverted": (r"layers\.0\.self_attn\.q_proj", "has (no|a) bias"),
    "bias-not-a-parameter": (r"layers\.0\.self_attn\.v_proj", "no parameter of the model"),
    "bias-loaded-unused": ("logits", "no bias were added"),
    "rmsnorm-eps-hardcoded": (_FIRST_NORM, "eps is 1e-05, not 1e-06"),
    "rmsnorm-eps-configuration-ignored": (_FIRST_NORM, "eps is 1e-05, not 1e-06"),
    "rmsnorm-eps-outside-root": (_FIRST_NORM, "eps outside the root"),
    "rmsnorm-variance-unbiased": (_FIRST_NORM, "width − 1"),
    "rmsnorm-statistics-in-bfloat16": (_FIRST_NORM, "statistics rounded to bfloat16"),
    "rmsnorm-statistics-detached": ("norm", "term through the mean square"),
    "norm-gradient-scaled": ("norm", r"scaled by 0\.99"),
    "rope-interleaved": (_FIRST_ROPE, "interleaved"),
    "rope-positions-from-one": (_FIRST_ROPE, "keys rotated by one position too many"),
    "rope-tables-from-one": (_FIRST_ROPE, "^buffer cos/sin: rotated by one position too many"),
    "rope-tables-in-bfloat16": (_FIRST_ROPE, "^buffer cos/sin: tables in bfloat16"),
    "rope-angles-in-bfloat16": (_FIRST_ROPE, "angles in bfloat16"),
    "rope-angles-in-float32": (_FIRST_ROPE, "^buffer cos/sin: angles in float32"),
    "theta-ignored": (_FIRST_ROPE, "^buffer cos/sin: theta is (500000|5000), not"),
    "mask-absent": (_FIRST_ATTENTION, "mask missing"),
    "heads-tiled": (_FIRST_ATTENTION, "tiled instead of repeated"),
    "values-of-partial-block-lost": (_FIRST_ATTENTION, "last whole block of 128"),
    "attention-scale-of-padded-head": (_FIRST_ATTENTION, "scale of a head of 16"),
    "attention-dropout-left-on": (_FIRST_ATTENTION, "dropout"),
    "attention-gradient-scaled": (_LAST_ATTENTION, r"gradient of v scaled by 0\.9[45]"),
    "kv-gradient-averaged-over-group": (_LAST_ATTENTION, "averaged over the group"),
    "gelu-for-silu": (_FIRST_GATE, "GELU for SiLU"),
    "swiglu-up-plus-one": (_FIRST_GATE, r"up \+ 1"),
    "swiglu-quick-gelu": (_FIRST_GATE, "quick GELU"),
    "swiglu-gate-clamped-at-seven": (_FIRST_GATE, "clamped at 7"),
    "swiglu-sigmoid-in-bfloat16": (_FIRST_GATE, "sigmoid rounded to bfloat16"),
    "swiglu-slope-lacks-a-term": (r"layers\.2\.mlp\.gate", "lacks silu"),
    "log-of-probability-plus-eps": ("loss", r"log of probability \+ 1e-06"),
    "vocabulary-tail-left-out": ("loss", "last whole block of 64"),
    "logits-soft-capped": ("loss", "soft-capped at 30"),
    "upstream-gradient-ignored": ("loss", "gradients scaled by"),
    "head-gradient-halved-in-bfloat16": ("loss", "gradient of weight halved"),
    "embedding-gradient-halved-in-bfloat16": ("embed_tokens", "halved"),
    "labels-rolled": ("loss", "targets are not the next tokens"),
    "float32-for-bfloat16": ("embed_tokens", "computed in float32"),
    "one-operator-off": (r"layers\.2\.mlp\.down_proj", r"scaled by 1\.02"),
    "one-norm-one-percent-off": (
        "logits",
        r"layers\.0\.post_attention_layernorm\.weight were scaled by 1\.01",
    ),
    "logits-scaled": ("logits", r"scaled by 1\.001"),
    "one-gradient-one-percent-off": (
        r"layers\.1\.self_attn\.o_proj\.weight",
        r"scaled by 0\.99",
    ),
    "mean-of-sequence-means": ("loss", "mean of sequence means"),
}
"""Planted under each of `MODEL_TESTS`, whether those declare them or not."""

DECLARED: dict[str, tuple[str, str]] = {
    "rmsnorm-eps-dropped": ("rmsnorm", "eps left out"),
    "rmsnorm-eps-outside-root": ("rmsnorm", "eps outside the root"),
    "rmsnorm-weight-plus-one": ("rmsnorm", r"1 \+ weight"),
    "rmsnorm-weight-in-bfloat16": ("rmsnorm", "weight rounded to bfloat16"),
    "rmsnorm-tail-unsummed": ("rmsnorm", "last columns not summed"),
    "rmsnorm-input-clamped": ("rmsnorm", "clamped to float16"),
    "rope-attention-factor": ("rope", r"scaled by 1\.00"),
    "rope-keys-one-ahead": ("rope", "keys rotated by one position too many"),
    "rope-positions-wrap": ("rope", "start again after 2048"),
    "rope-gradient-not-turned-back": ("rope", "gradient of q not turned back"),
    "rope-gradient-stretched": ("rope", r"gradient of k scaled by 1\.01"),
    "mask-one-token-late": ("attention", "one token late"),
    "mask-adds-ten-thousand": ("attention", "mask adds a finite number"),
    "softmax-with-one-more": ("attention", "one more in the denominator"),
    "attention-scale-in-bfloat16": ("attention", "scale rounded to bfloat16"),
    "key-gradient-scaled": ("attention", r"gradient of k scaled by 0\.98"),
    "kv-head-off-by-one": ("attention", "next group's head"),
    "kv-gradient-lacks-group-remainder": ("attention", "lack the last 3 of 7"),
    "two-query-heads-exchanged": ("attention", "border exchanged"),
    "key-gradient-lacks-a-head": ("attention", "lack the last 1 of"),
    "swiglu-halves-swapped": ("swiglu", "exchanged"),
    "swiglu-sigmoid-flatter": ("swiglu", r"sigmoid of 0\.99"),
    "swiglu-gate-saturates": ("swiglu", "clamped at 64"),
    "eval-labels-are-inputs": ("evaluation", "not shifted"),
    "mean-of-batch-means": ("evaluation", "mean of batch means"),
    "padding-scored": ("evaluation", "masked targets are scored"),
    "eval-first-eight-rows": ("evaluation", "first eight rows"),
    "eval-drops-last-batch": ("evaluation", "last batch is left out"),
    "populate-gap-biases": (r"layers\.0\.self_attn\.\w_proj\.bias", "never|all zero"),
    "populate-gap-last-layer": (r"layers\.\d+\..*", "never"),
    "init-dropped": (r"embed_tokens\.weight", "never loaded"),
    "init-not-uploaded": (r"embed_tokens\.weight", "never loaded"),
    "mean-of-micro-batch-means": ("step 0, (loss|backward)", "mean of micro-batch means"),
    "last-micro-batch-lost": ("step 0, .*", "last micro-batch|first micro-batch"),
    "loss-reported-as-mean-of-means": ("step 0, loss", "mean of micro-batch means"),
    "clip-by-square": (r"step \d+, clipping", "squared norm"),
    "clip-missing": (r"step \d+, clipping", "not clipped"),
    "clip-per-tensor": (r"step \d+, clipping", "by its own norm"),
    "clip-by-root-of-norm": (r"step \d+, clipping", "root of the norm"),
    "sum-of-squares-reported": (r"step \d+, gradient norm", "sum of squares"),
    "lm-head-norm": (r"step \d+, gradient norm", "alone"),
    "grad-norm-constant": (r"step \d+, gradient norm", "a constant"),
    "logged-rate-halved": (r"step \d+, learning rate", "halved"),
    "weights-restored-every-step": (r"step \d+, weights", "not updated"),
    "norm-after-clipping": (r"step \d+, gradient norm", "after clipping"),
    "beta2-999": (r"step \d+, optimizer", r"beta2 is 0\.999"),
    "decay-on-norms": (r"step \d+, weights", "on norms"),
    "decay-dropped": (r"step \d+, weights", "decay left out"),
    "bias-correction-frozen": (r"step \d+, (optimizer|weights)", "correction|step count"),
    "bias-correction-left-out": (r"step \d+, weights", "correction left out"),
    "eps-inside-the-root": (r"step \d+, weights", "eps inside the root"),
    "l2-penalty-in-the-loss": (r"step \d+, backward", "L2 penalty"),
    "weights-rounded-to-bfloat16": (r"step \d+, weights", "rounded to bfloat16"),
    "ascent": (r"step \d+, .*", "reverse"),
    "seed-drawn-anew": ("initial weights", "two runs of one seed"),
    # Two draws may round to the same float, so that not every step shows it.
    "gradient-summed-in-any-order": (r"step \d, backward", "two runs of one seed.*1 of"),
    "second-run-off-in-the-last-bit": ("step 0, weights", "two runs of one seed.*1 of"),
}
"""Planted under the tests that declare them, on the CPU."""
