"""Is the architecture the one that the file declares, field for field, or else Llama-370M?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from falsifiers.fixtures import Assets, Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from falsifiers.subject import OperatorRecord
    from falsifiers.subject_parts import Operators


def falsify_published_file_is_read(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A config.json as the family publishes it, without what it leaves out, gives every field."""
    import json

    folder = _folder(tmp_path, configuration)
    stated = json.loads((folder / "config.json").read_text())
    for field in ("head_dim", "attention_bias"):
        del stated[field]
    stated |= {"architectures": ["Qwen2ForCausalLM"], "torch_dtype": "bfloat16"}
    stated |= {"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 24}
    (folder / "config.json").write_text(json.dumps(stated))
    _compare(subject.read_architecture(folder), configuration, measured)


def falsify_named_architecture_is_the_contracts(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """A named architecture is the contract's: as the code states it, or as built without init."""
    if case.found_in == "code":
        found = subject.configuration(case.arch)
    else:
        found = subject.build_pretrain(device=case.device, dtype="float32", seed=0).config
    _compare(found, configuration, measured)


def falsify_field_comes_from_the_file(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A field has the file's value when that changes, and a file without it is refused by name."""
    import json

    from falsifiers.refusals import attempt
    from falsifiers.weight_files import hugging_face_config

    folder = _folder(tmp_path, configuration)
    stated = {**configuration, case.field: _changed(case.field, configuration)}
    published = hugging_face_config(stated)
    name = _PUBLISHED.get(case.field, case.field)
    (folder / "config.json").write_text(json.dumps(published))
    found = subject.read_architecture(folder)
    differing = [field for field in stated if found[field] != stated[field]]
    del published[name]
    (folder / "config.json").write_text(json.dumps(published))
    refusal = attempt(lambda: subject.read_architecture(folder))
    measured(
        changed=stated[case.field] != configuration[case.field],
        different_fields=len(differing),
        which=", ".join(differing),
        refused_without=refusal.refused,
        names_the_field=name in refusal.message,
        message=refusal.message,
    )


def falsify_grouped_attention_is_full_attention(
    subject: Subject, case: Case, measured: Measured
) -> None:
    """Grouped heads give what full attention gives with each key and value head repeated.

    Values and gradients, against the same operator with repeated heads and against float64; the
    yardstick of the latter is plain eager torch in the same dtype on the same inputs.
    """
    import torch

    from falsifiers.operator_parity import compare_trace

    times = case.heads // case.kv_heads
    generator = torch.Generator().manual_seed(case.seed)

    def normal(heads: int) -> Tensor:
        shape = (2, heads, case.length, case.head_dim)
        made = torch.randn(shape, generator=generator)
        return made.to(device=case.device, dtype=getattr(torch, case.dtype))

    q, k, v = normal(case.heads), normal(case.kv_heads), normal(case.kv_heads)
    upstream = normal(case.heads)
    operators = subject.operators()
    grouped = _attended(operators, q, k, v, upstream)
    repeated = [x.repeat_interleave(times, dim=1) for x in (k, v)]
    full = _attended(operators, q, repeated[0], repeated[1], upstream)
    exact = _exact(q, k, v, upstream)
    folded = {**full, "k": _summed(full["k"], times), "v": _summed(full["v"], times)}
    verdict = compare_trace([_record((q, k, v), upstream, grouped)], case.dtype)
    measured(
        full_cosine=min(_cosine(grouped[n], folded[n]) for n in grouped),
        reference_cosine=min(_cosine(grouped[n], exact[n]) for n in grouped),
        forward_ratio=verdict.forward.ratio,
        backward_ratio=verdict.attention_backward.ratio,
        gain_ratio=verdict.gain.ratio,
        compared=verdict.operators + verdict.backward_operators,
    )


def falsify_tokenizer_check_follows_init(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """The pre-flight check takes or refuses a tokenizer of `size` ids, with `init` or without."""
    from falsifiers.refusals import attempt

    refusal = attempt(
        lambda: subject.require_fitting_tokenizer(case.size, configuration, init=case.init)
    )
    sizes = (case.size, configuration["vocab_size"])
    measured(
        refused=refusal.refused,
        kind=refusal.kind,
        names_both_sizes=all(str(size) in refusal.message for size in sizes),
        message=refusal.message,
    )


def falsify_real_tokenizer_follows_init(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, assets: Assets
) -> None:
    """The tokenizer in a real model's file fits that model, and not Llama-370M from scratch."""
    from falsifiers.refusals import attempt

    size = subject.tokenizer(assets(case.weights)).vocab_size
    scratch = subject.configuration("llama-370m")
    own, other = (
        attempt(lambda c=config, i=init: subject.require_fitting_tokenizer(size, c, init=i))  # type: ignore[misc]
        for config, init in ((configuration, True), (scratch, False))
    )
    measured(
        size=size,
        refused_with_init=own.refused,
        refused_without=other.refused,
        names_both_sizes=all(str(n) in other.message for n in (size, scratch["vocab_size"])),
    )


def falsify_encoder_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """An encoder is refused by the builder and by the reader of its file, each citing the claim."""
    import json

    from falsifiers.refusals import attempt

    folder = _folder(tmp_path, configuration)
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stated, "model_type": case.family}))
    config = {**configuration, "architecture": case.family}
    builder = attempt(
        lambda: subject.build_pretrain(
            device="cpu", dtype="float32", seed=0, init_arch=config, init_path=folder
        )
    )
    reader = attempt(lambda: subject.read_architecture(folder))
    measured(
        builder_refused=builder.refused,
        builder_kind=builder.kind,
        builder_message=builder.message,
        reader_refused=reader.refused,
        reader_kind=reader.kind,
        reader_message=reader.message,
        names_the_family=case.family in builder.message and case.family in reader.message,
    )


_PUBLISHED = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
}


def _folder(tmp_path: Path, config: Configuration) -> Path:
    """A Hugging Face folder of `config` whose tensors nobody reads: one is enough."""
    import torch

    from falsifiers.weight_files import write_folder

    return write_folder(tmp_path / "model", config, {"model.norm.weight": torch.ones(8)})


def _compare(found: Configuration, expected: Configuration, measured: Measured) -> None:
    """Fields that differ in spelling as JSON, so that 1 is not 1.0 and not true."""
    import json

    ours = {name: json.dumps(value) for name, value in found.items()}
    theirs = {name: json.dumps(value) for name, value in expected.items()}
    different = [n for n in sorted(ours.keys() | theirs.keys()) if ours.get(n) != theirs.get(n)]
    measured(fields=len(theirs), different_fields=len(different), which=", ".join(different))


def _changed(field: str, config: Configuration) -> Any:
    value = config[field]
    if isinstance(value, bool):
        return not value
    # One key-value head divides every number of heads; all other sizes double.
    return 1 if field == "num_kv_heads" else value * 2


def _attended(
    operators: Operators, q: Tensor, k: Tensor, v: Tensor, upstream: Tensor
) -> dict[str, Tensor]:
    """Output and gradients of the subject's attention."""
    import torch

    inputs = {n: x.detach().clone().requires_grad_() for n, x in {"q": q, "k": k, "v": v}.items()}
    out = operators.attention(**inputs)
    gradients = torch.autograd.grad(out, list(inputs.values()), upstream)
    return {"out": out.detach(), **dict(zip(inputs, gradients, strict=True))}


def _summed(gradient: Tensor, times: int) -> Tensor:
    """The gradient of a head that was repeated `times` times: the sum over its copies."""
    batch, heads, length, size = gradient.shape
    return gradient.float().reshape(batch, heads // times, times, length, size).sum(2)


def _exact(q: Tensor, k: Tensor, v: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    import torch

    from falsifiers.reference.operators import recompute, recompute_backward

    inputs = {"q": q, "k": k, "v": v}
    double = torch.float64
    gradients, _ = recompute_backward("attention", inputs, {}, {}, {"out": upstream}, double)
    return {**recompute("attention", inputs, {}, {}, double), **gradients}


def _record(
    given: tuple[Tensor, Tensor, Tensor], upstream: Tensor, found: dict[str, Tensor]
) -> OperatorRecord:
    from falsifiers.subject import OperatorRecord

    names = ("q", "k", "v")
    return OperatorRecord(
        name="attention",
        kind="attention",
        inputs=dict(zip(names, given, strict=True)),
        outputs={"out": found["out"]},
        grad_outputs={"out": upstream},
        grad_inputs={name: found[name] for name in names},
    )


def _cosine(value: Tensor, reference: Tensor) -> float:
    a, b = value.double().flatten(), reference.double().to(value.device).flatten()
    return float(a @ b / (a.norm() * b.norm()))
