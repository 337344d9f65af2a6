"""Does --init do what it says, from the command line to the checkpoint, and nothing without it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from falsifiers.fixtures import Assets, Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from falsifiers.refusals import Refusal
    from falsifiers.subject import Instance


def falsify_flag_exists(subject: Subject, case: Case, measured: Measured) -> None:
    """The pretrain command lists --init, and misses its value where none is given."""
    import re

    helped = _command(subject, "pretrain", "--help")
    bare = _command(subject, "pretrain", "--init")
    measured(
        help_code=helped.returncode,
        listed=re.search(r"^\s+--init[ =]\S+ +\S+", helped.stdout, re.MULTILINE) is not None,
        bare_code=bare.returncode,
        bare_message=" ".join((bare.stderr + bare.stdout).split()),
    )


def falsify_every_surface_knows_the_flag(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Command line, builder and guide each know initial weights; none is left behind."""
    import re

    from falsifiers.refusals import attempt
    from falsifiers.suite import SUITE

    overview, helped = (_command(subject, *w, "--help").stdout for w in ((), ("pretrain",)))
    half = attempt(
        lambda: subject.build_pretrain(
            device="cpu", dtype="float32", seed=0, init_path=tmp_path / "absent"
        )
    )
    guide = (SUITE.root / case.guide).read_text(encoding="utf-8")
    measured(
        overview_names=len(re.findall(r"--init\b", overview)),
        help_names=len(re.findall(r"--init[ =][A-Z<{]", helped)),
        builder_names="init_path" in half.message,
        guide_examples=len(re.findall(r"pretrain .*--init \S+", guide)),
    )


def falsify_without_init_nothing_changes(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """What is built without init is the same bits, and as checked, after a model was built with it.

    `entry` says which builder makes the model without init: any configuration's, or the pretrain
    command's default, which is hundreds of millions of weights.
    """
    import torch

    from falsifiers.refusals import attempt

    def scratch() -> dict[str, Any]:
        if case.entry == "build":
            built = subject.build(configuration, **how)
        else:
            built = subject.build_pretrain(**how)
        return {name: p.cpu() for name, p in built.parameters().items()}

    def refused() -> Refusal:
        return attempt(lambda: subject.build_pretrain(**how, from_scratch=small))

    how: dict[str, Any] = {"device": case.device, "dtype": case.dtype, "seed": case.seed}
    small = {**subject.configuration("llama-370m"), "num_layers": 1}
    expected = {n: p.cpu() for n, p in subject.build(configuration, **how).parameters().items()}
    first = refused()
    folder, config = _folder(tmp_path, _SMALL, case.seed)
    _initialised(subject, config, folder, case.device, case.dtype, case.seed)
    again, found = refused(), scratch()
    common = expected.keys() & found.keys()
    measured(
        tensors_compared=len(common),
        tensors_unshared=len(expected.keys() ^ found.keys()),
        tensors_different=sum(not torch.equal(expected[n], found[n]) for n in common),
        refused=again.refused and first.refused,
        message=again.message,
        message_changed=first.message != again.message,
    )


def falsify_missing_file_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A path that leads nowhere, or to a folder without a part, is refused by the part's name."""
    folder, config = _folder(tmp_path, configuration, 0)
    asked = folder
    match case.missing:
        case "file":
            asked = lost = folder / "other.safetensors"
        case "gguf":
            asked = lost = folder / "other.gguf"
        case "folder":
            asked = lost = tmp_path / "elsewhere"
        case "config":
            lost = folder / "config.json"
        case "tensors":
            lost = folder / "model.safetensors"
    lost.unlink(missing_ok=True)
    refusal = _refusal(subject, config, asked)
    measured(
        refused=refusal.refused,
        kind=refusal.kind,
        names_the_file=lost.name in refusal.message,
        message=refusal.message,
    )


def falsify_damaged_file_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A file that is empty, cut off, or of another kind is refused, and the message names it."""
    folder, config = _folder(tmp_path, configuration, 0)
    damaged = folder / "model.safetensors"
    whole = damaged.read_bytes()
    match case.fault:
        case "empty":
            damaged.write_bytes(b"")
        case "bad-magic":
            damaged = folder / "model.gguf"
            damaged.write_bytes(b"GGUX" + whole)
        case "empty-gguf":
            damaged = folder / "model.gguf"
            damaged.write_bytes(b"")
        case "cut-header":
            damaged.write_bytes(whole[:100])
        case "cut-data":
            damaged.write_bytes(whole[:-4])
        case "page":
            damaged.write_bytes(b"<!DOCTYPE html><title>404</title>" * 40)
    asked = folder if damaged.suffix == ".safetensors" else damaged
    refusal = _refusal(subject, config, asked)
    measured(
        refused=refusal.refused,
        kind=refusal.kind,
        names_the_file=damaged.name in refusal.message,
        message=refusal.message,
    )


def falsify_other_architecture_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """An architecture that differs from the file's in one field is refused, naming the field."""
    folder, config = _folder(tmp_path, configuration, 0)
    value = config[case.field]
    other = not value if isinstance(value, bool) else value * 2
    refusal = _refusal(subject, {**config, case.field: other}, folder)
    measured(
        refused=refusal.refused,
        kind=refusal.kind,
        names_the_field=case.field in refusal.message,
        message=refusal.message,
    )


def falsify_bogus_metadata_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A field that holds something impossible is refused by name, and not bent to fit."""
    import json

    from falsifiers.refusals import attempt
    from falsifiers.weight_files import hugging_face_config

    folder, config = _folder(tmp_path, configuration, 0)
    value: Any = float("nan") if case.value == "nan" else case.value
    match case.field:
        case "architectures":
            value = [value]
        case "rope_parameters" | "rope_scaling":
            value = {"rope_type": value, "rope_theta": config["rope_theta"]}
    stated = {**hugging_face_config(config), case.field: value}
    (folder / "config.json").write_text(json.dumps(stated))
    refusal = attempt(lambda: subject.read_architecture(folder))
    own = {"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"}
    measured(
        refused=refusal.refused,
        kind=refusal.kind,
        names_the_field=own.get(case.field, case.field) in refusal.message,
        message=refusal.message,
    )


def falsify_first_loss_is_that_of_the_weights(
    subject: Subject,
    case: Case,
    measured: Measured,
    configuration: Configuration,
    assets: Assets,
    tmp_path: Path,
) -> None:
    """The loss of step 0 is the oracle's on the file's weights, and nats below a random model's."""
    from falsifiers.predictive_weights import predictive_weights, successor_batch, untied
    from falsifiers.reference.loss import mean_loss
    from falsifiers.subject import Batch

    if case.weights == "predictive":
        config: Configuration = untied(configuration)
        weights: Mapping[str, Tensor] = predictive_weights(config, case.seed)
        batch = successor_batch(config, 2, case.targets, case.seed)
        path = _written(tmp_path, config, weights)
    else:
        from falsifiers.real_weights import oracle_weights
        from falsifiers.tokens import read_tokens

        path = assets(case.weights)
        config, weights = oracle_weights(path)
        batch = Batch(read_tokens(path, case.text, case.targets + 1)[None])
    instance = _initialised(subject, config, path, case.device, case.dtype, case.seed)
    blank = subject.build(config, device=case.device, dtype=case.dtype, seed=case.seed)
    placed = batch.to(instance.device)
    random_loss = blank.evaluate([placed])
    del blank
    first = instance.train_step(placed, lr=0.0)
    exact = mean_loss(weights, config, batch.tokens).item()
    measured(
        step=first.step,
        first_loss=first.train_loss,
        random_loss=random_loss,
        loss_error=abs(first.train_loss - exact),
        distinct_tokens=len(set(batch.tokens.flatten().tolist())),
    )


def falsify_optimizer_starts_at_zero(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Initial weights bring no moments and no step count; the first update is AdamW's first.

    `source` is a folder of weights alone, or the checkpoint of a run whose moments are not zero.
    """
    import torch

    from falsifiers.errors import worst_relative_error
    from falsifiers.inputs import random_batch
    from falsifiers.reference import adamw
    from falsifiers.subject_parts import Provenance

    path, config = _folder(tmp_path, configuration, case.seed)
    batch = random_batch(config, 2, 32, case.seed)
    if case.source == "checkpoint":
        before = _initialised(subject, config, path, case.device, case.dtype, case.seed)
        for _ in range(3):
            before.train_step(batch.to(before.device), lr=1e-2)
        path = tmp_path / "trained.apr"
        before.save_checkpoint(path, Provenance("0" * 64, 1))
    instance = _initialised(subject, config, path, case.device, case.dtype, case.seed)
    state = instance.optimizer_state()
    weights = {n: p.double().clone() for n, p in instance.parameters().items()}
    moments = {n: (m.exp_avg.clone(), m.exp_avg_sq.clone()) for n, m in state.items()}
    steps = max(m.step for m in state.values())
    placed = batch.to(instance.device)
    # Its own gradients: Adam divides each by its size, and would make the rounding of one that
    # nearly vanishes as large as any update.
    _, gradients = instance.loss_and_gradients(placed)
    exact = {name: gradient.double() for name, gradient in gradients.items()}
    clipped, _ = adamw.clip_by_global_norm(exact, case.clip)
    settings = adamw.AdamWSettings(case.beta1, case.beta2, case.eps, case.decay)
    expected, _ = adamw.step(weights, clipped, adamw.initial_state(weights), settings, 1e-2)
    first = instance.train_step(placed, lr=1e-2)
    moved = {n: p.double() - weights[n] for n, p in instance.parameters().items()}
    error, where = worst_relative_error(moved, {n: expected[n] - weights[n] for n in weights})
    measured(
        states=len(state),
        parameters=len(weights),
        nonzero_moments=sum(
            bool(torch.count_nonzero(m)) for pair in moments.values() for m in pair
        ),
        steps_counted=steps,
        first_step=first.step,
        update_error=error,
        worst_update=where,
    )


def falsify_loading_twice_is_the_same(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Two models loaded from one file leave byte-identical checkpoints, used or not in between."""
    import hashlib

    from falsifiers.inputs import random_batch
    from falsifiers.subject_parts import Provenance

    folder, config = _folder(tmp_path, configuration, case.seed)
    batch = random_batch(config, 2, 32, case.seed)
    digests = []
    for number in range(2):
        instance = _initialised(subject, config, folder, case.device, case.dtype, case.seed)
        for _ in range(case.steps):
            instance.train_step(batch.to(instance.device), lr=1e-3)
        path = tmp_path / f"{number}.apr"
        instance.save_checkpoint(path, Provenance("0" * 64, 1))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        instance.train_step(batch.to(instance.device), lr=1e-1)  # must not reach the next one
    other = _initialised(subject, config, folder, case.device, case.dtype, case.seed + 1)
    other.train_step(batch.to(other.device), lr=1e-3)
    other.save_checkpoint(tmp_path / "other.apr", Provenance("0" * 64, 1))
    moved = hashlib.sha256((tmp_path / "other.apr").read_bytes()).hexdigest()
    measured(
        bytes_written=(tmp_path / "0.apr").stat().st_size,
        digests=len(set(digests)),
        sees_a_step=moved not in digests,
    )


_SMALL: Configuration = {
    "architecture": "qwen2",
    "hidden_size": 32,
    "num_layers": 1,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 97,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "attention_bias": True,
    "tie_word_embeddings": True,
}


def _command(subject: Subject, *words: str) -> Any:
    import os
    import subprocess

    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(
        subject.command(*words),
        capture_output=True, text=True, env=environment, timeout=120, check=False,
    )  # fmt: skip


def _folder(tmp_path: Path, config: Configuration, seed: int) -> tuple[Path, Configuration]:
    """A folder with random weights of `config`, and `config`."""
    from falsifiers.weight_files import random_weights

    return _written(tmp_path, config, random_weights(config, seed)), config


def _written(tmp_path: Path, config: Configuration, weights: Any) -> Path:
    from falsifiers.weight_files import write_folder

    return write_folder(tmp_path / "model", config, weights)


def _initialised(
    subject: Subject, config: Configuration, path: Path, device: str, dtype: str, seed: int
) -> Instance:
    return subject.build_pretrain(
        device=device,
        dtype=dtype,
        seed=seed,
        init_arch=subject.read_architecture(path),
        init_path=path,
    )


def _refusal(subject: Subject, config: Configuration, path: Path) -> Refusal:
    """How the builder takes an architecture and a path."""
    from falsifiers.refusals import attempt

    return attempt(
        lambda: subject.build_pretrain(
            device="cpu", dtype="float32", seed=0, init_arch=config, init_path=path
        )
    )
