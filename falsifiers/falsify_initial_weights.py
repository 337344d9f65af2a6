"""Do initial weights reach the device whole, and are wrong ones refused?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from falsifiers.fixtures import Assets, Case, Configuration, Measured, Subject


def falsify_init_reaches_the_device(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Every tensor of the file is in the model, bit for bit, and the first loss is the file's."""
    import torch

    from falsifiers.inputs import random_batch
    from falsifiers.reference.loss import mean_loss
    from falsifiers.weight_files import random_weights, write_folder

    weights = random_weights(configuration, case.seed)
    path = write_folder(tmp_path / "model", configuration, weights)
    instance = subject.build_pretrain(
        device=case.device,
        dtype=case.dtype,
        seed=case.seed + 1,
        init_arch=subject.read_architecture(path),
        init_path=path,
    )
    loaded = {name: p.cpu() for name, p in instance.parameters().items()}
    common = weights.keys() & loaded.keys()
    batch = random_batch(configuration, 2, 32, case.seed)
    loss = instance.evaluate([batch])
    exact = mean_loss(weights, configuration, batch.tokens).item()
    measured(
        device_kind=instance.device.partition(":")[0],
        tensors_in_file=len(weights),
        tensors_compared=len(common),
        tensors_surplus=len(loaded.keys() - weights.keys()),
        tensors_different=sum(not torch.equal(weights[n], loaded[n]) for n in common),
        loss_error=abs(loss - exact) / exact,
    )


def falsify_unpaired_init_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Architecture and weights come together or not at all, and the error names the function."""
    from falsifiers.refusals import attempt

    init: dict[str, dict[str, Any]] = {
        "architecture": {"init_arch": configuration},
        "weights": {"init_path": tmp_path / "does-not-exist.safetensors"},
    }
    refusal = attempt(
        lambda: subject.build_pretrain(
            device=case.asked, dtype=case.dtype, seed=0, **init[case.given]
        )
    )
    measured(refused=refusal.refused, kind=refusal.kind, message=refusal.message)


def falsify_encoder_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """An encoder architecture is refused before any file or device is touched."""
    from falsifiers.refusals import attempt

    refusal = attempt(
        lambda: subject.build_pretrain(
            device=case.asked,
            dtype=case.dtype,
            seed=0,
            init_arch={**configuration, "architecture": case.family},
            init_path=tmp_path / "does-not-exist.safetensors",
        )
    )
    measured(refused=refusal.refused, kind=refusal.kind, message=refusal.message)


def falsify_real_encoder_file_is_refused(
    subject: Subject, case: Case, measured: Measured, assets: Assets, tmp_path: Path
) -> None:
    """The folder of a real sentence encoder is refused, naming its family."""
    import shutil

    from falsifiers.refusals import attempt

    folder = tmp_path / "encoder"
    folder.mkdir()
    shutil.copy(assets("minilm-encoder-config"), folder / "config.json")
    shutil.copy(assets("minilm-encoder-weights"), folder / "model.safetensors")
    refusal = attempt(lambda: subject.read_architecture(folder))
    measured(refused=refusal.refused, kind=refusal.kind, message=refusal.message)


def falsify_populate_covers_every_tensor(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A file that does not fill the model exactly is refused, naming the tensor."""
    import torch

    from falsifiers.refusals import attempt
    from falsifiers.weight_files import random_weights, write_folder

    weights = random_weights(configuration, case.seed)
    name = "model.layers.1.self_attn.k_proj.bias"
    match case.fault:
        case "missing":
            del weights[name]
        case "surplus":
            name = "model.layers.1.self_attn.o_proj.bias"
            weights[name] = torch.ones(configuration["hidden_size"])
        case "shape":
            weights[name] = torch.ones(weights[name].numel() + 1)
        case "nan" | "inf":
            weights[name][0] = float(case.fault)
    path = write_folder(tmp_path / "model", configuration, weights)
    refusal = attempt(
        lambda: subject.build_pretrain(
            device=case.device,
            dtype="float32",
            seed=0,
            init_arch=configuration,
            init_path=path,
        )
    )
    named = name in refusal.message
    measured(
        refused=refusal.refused, kind=refusal.kind, names_the_tensor=named, message=refusal.message
    )
