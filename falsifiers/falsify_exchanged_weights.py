"""Do weights come out of a checkpoint, and in from safetensors, whole and for inference alone?"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from falsifiers.fixtures import Case, Configuration, Measured, Subject


def falsify_hostile_safetensors_are_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A header that contradicts its file is refused with a message that names the contradiction."""
    from falsifiers.refused_files import Tried
    from falsifiers.training_state import small
    from falsifiers.weight_files import random_weights, write_folder

    config = small(configuration, case.vocabulary, case.layers)
    folder = write_folder(tmp_path / "model", config, random_weights(config, case.seed))
    path = folder / "model.safetensors"
    whole = path.read_bytes()

    def build() -> object:
        arch = subject.read_architecture(folder)
        return subject.build_pretrain(
            device=case.device, dtype="float32", seed=0, init_arch=arch, init_path=folder
        )

    build()  # refused here, it would be the file that is wrong and not what is done to it
    tried, needles = Tried(), {}
    for label, (content, needle) in _hostile(whole).items():
        path.write_bytes(content)
        needles[label] = needle
        tried.each([(label, build)])
    unnamed = tried.unnamed(needles)
    measured(
        tried=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        faults=tried.faults(),
        kinds=tried.kinds(),
        unnamed=len(unnamed),
        unnamed_labels=", ".join(unnamed)[:400],
    )


def _hostile(whole: bytes) -> dict[str, tuple[bytes, str]]:
    """Spoiled copies of a whole file by label, each with what the refusal has to name."""
    (size,) = struct.unpack_from("<Q", whole)
    header, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    names = sorted((n for n in header if n != "__metadata__"), key=lambda n: _start(header[n]))
    name, after = names[1], names[2]
    start, end = header[name]["data_offsets"]

    def packed(text: str, content: bytes = data) -> bytes:
        return struct.pack("<Q", len(text.encode())) + text.encode() + content

    def edited(**fields: Any) -> bytes:
        return packed(json.dumps({**header, name: {**header[name], **fields}}))

    shape = header[name]["shape"]
    doubled = json.dumps(header)[:-1] + f', "{name}": {json.dumps(header[name])}}}'
    both = {**header, after: {**header[after], "data_offsets": [start, end], "shape": shape}}
    spoiled = {
        "overlapping": (packed(json.dumps(both)), after),
        "a range past the end": (
            edited(data_offsets=[len(data), len(data) + end - start]),
            "start of",
        ),
        "a range turned round": (edited(data_offsets=[end, start]), name),
        "a negative offset": (edited(data_offsets=[-4, end]), name),
        "an offset beyond u64": (edited(data_offsets=[2**70, 2**70 + end - start]), "start of"),
        "a fractional offset": (edited(data_offsets=[0.5, end]), name),
        "three offsets": (edited(data_offsets=[start, end, end]), name),
        "a shape beyond any memory": (edited(shape=[2**40, 2**40]), name),
        "a negative dimension": (edited(shape=[-1, *shape[1:]]), name),
        "a dtype of another width": (edited(dtype="F64"), name),
        "a dtype of whole numbers": (edited(dtype="I32"), name),
        "an unknown dtype": (edited(dtype="F7"), name),
        "no dtype": (edited(dtype=None), name),
        "a name twice": (packed(doubled), "header"),
        "no JSON": (packed("{" * 64), "header"),
        "a list": (packed("[]"), "header"),
        "nested beyond any stack": (packed("[" * 100_000), "header"),
        "bytes that are no text": (whole[:8] + b"\xff" * size + data, "header"),
        "a header of 2⁶³ bytes": (struct.pack("<Q", 2**63) + whole[8:], "header size"),
        "a header of all bytes but one": (struct.pack("<Q", len(whole) - 7) + whole[8:], "size"),
        "a header of no bytes": (struct.pack("<Q", 0) + whole[8:], "header"),
        "seven bytes": (whole[:7], "length"),
        "data cut short": (whole[:-4], "bytes"),
        "data too long": (whole + bytes(4), "bytes"),
    }
    return {label: (content, needle) for label, (content, needle) in spoiled.items()}


def _start(entry: dict[str, Any]) -> int:
    return int(entry["data_offsets"][0])


def falsify_inference_skips_training_state(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A checkpoint serves as initial weights: every weight, no moment, however named."""
    import numpy as np
    import torch

    from falsifiers.apr_edits import taken_apart
    from falsifiers.inputs import random_tokens
    from falsifiers.refused_files import Tried
    from falsifiers.training_state import PROVENANCE, small, window

    config = small(configuration, case.vocabulary, case.layers)
    trained = subject.build(config, device=case.device, dtype=case.dtype, seed=case.seed)
    for step in range(2):
        trained.train_step(window(config, case.seed, step, 16), lr=1e-2)
    path = tmp_path / "saved.apr"
    trained.save_checkpoint(path, PROVENANCE)
    extended = taken_apart(path)
    extended.tensors["__training__.of.a.later.version"] = np.ones(3, dtype=np.float32)
    bare = taken_apart(path)
    bare.tensors = {n: t for n, t in bare.tensors.items() if not n.startswith("__training__.")}
    del bare.metadata["training"]
    files = {"checkpoint": path}
    for label, parts in {"extended": extended, "bare": bare}.items():
        files[label] = tmp_path / f"{label}.apr"
        files[label].write_bytes(parts.packed())
    tokens = random_tokens(config, 2, 16, case.seed).to(trained.device)
    weights, expected = trained.parameters(), trained.logits(tokens)
    tried, built = Tried(), {}

    def load(label: str) -> None:
        built[label] = subject.build_pretrain(
            device=case.device,
            dtype=case.dtype,
            seed=case.seed + 1,
            init_arch=subject.read_architecture(files[label]),
            init_path=files[label],
        )

    tried.each([(label, lambda label=label: load(label)) for label in files])  # type: ignore[misc]
    fresh, differing, shifted = 0, 0, 0
    for instance in built.values():
        own = instance.parameters()
        names = own.keys() | weights.keys()
        differing += sum(
            n not in own or n not in weights or not torch.equal(own[n], weights[n]) for n in names
        )
        shifted += not torch.equal(instance.logits(tokens), expected)
        states = instance.optimizer_state().values()
        fresh += all(not bool(m.exp_avg.any() or m.exp_avg_sq.any()) and not m.step for m in states)
    measured(
        files_read=len(built),
        refused=len(tried.refused) + len(tried.crashed),
        differing=differing,
        other_logits=shifted,
        fresh_optimizers=fresh,
    )


def falsify_safetensors_round_trip(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Checkpoint to safetensors and back: the library reads the bits that the model had."""
    import torch
    from safetensors.torch import load_file

    from falsifiers.forks import run_command
    from falsifiers.reference.model import parameter_shapes
    from falsifiers.training_state import PROVENANCE, differing, small, window

    config = small(configuration, case.vocabulary, case.layers)
    trained = subject.build(config, device=case.device, dtype=case.dtype, seed=case.seed)
    trained.train_step(window(config, case.seed, 0, 16), lr=1e-2)
    path, folder = tmp_path / "saved.apr", tmp_path / "exported"
    trained.save_checkpoint(path, PROVENANCE)
    code = run_command(subject.command("export", str(path), str(folder)))
    file = folder / "model.safetensors"
    tensors = load_file(file) if file.exists() else {}
    expected = {n: p.cpu() for n, p in trained.parameters().items()}
    shapes = {n: tuple(t.shape) for n, t in tensors.items()}
    arch = subject.read_architecture(folder)
    loaded = subject.build_pretrain(
        device=case.device, dtype=case.dtype, seed=case.seed + 1, init_arch=arch, init_path=folder
    )
    back = {n: p.cpu() for n, p in loaded.parameters().items()}
    measured(
        exit_code=code,
        misshapen=len(shapes.items() ^ parameter_shapes(config).items()),
        not_float32=sum(t.dtype != torch.float32 for t in tensors.values()),
        differing_in_file=len(differing(expected, tensors)),
        differing_after_load=len(differing(expected, back)),
        misstated=sum(arch.get(field) != value for field, value in config.items()),
    )


def falsify_tokenizer_is_embedded_on_request(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """With its tokenizer a file encodes and decodes alone; without the request it has none."""
    from falsifiers.apr_container import AprContainer
    from falsifiers.forks import run_command
    from falsifiers.refusals import attempt
    from falsifiers.training_state import PROVENANCE, small, write_tokenizer

    config = small(configuration, case.vocabulary, case.layers)
    instance = subject.build(config, device=case.device, dtype=case.dtype, seed=case.seed)
    saved, asked = tmp_path / "saved.apr", tmp_path / "with.apr"
    instance.save_checkpoint(saved, PROVENANCE)
    folder = tmp_path / "tokenizer"
    tokens, merges = write_tokenizer(folder)
    code = run_command(
        subject.command("export", str(saved), str(asked), "--tokenizer", str(folder))
    )
    metadata = AprContainer(asked).metadata if asked.exists() else {}
    text = "the hen then heard her, ünïcode and\n\n  blanks<|endoftext|>"
    outside = subject.tokenizer(folder)
    inside = attempt(lambda: subject.tokenizer(asked))
    same = not inside.refused and subject.tokenizer(asked).encode(text) == outside.encode(text)
    merged = len(outside.encode("the")) == 1
    measured(
        exit_code=code,
        tokens_in_order=metadata.get("tokenizer.vocabulary") == tokens,
        merges=metadata.get("tokenizer.merges") == merges,
        same_ids=same,
        merges_matter=merged,
        not_asked=attempt(lambda: subject.tokenizer(saved)).refused,
    )
