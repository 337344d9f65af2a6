"""Is a checkpoint the whole state of a run, and is what is not one refused?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from falsifiers.apr_edits import AprParts
    from falsifiers.refused_files import Tried
    from falsifiers.subject import Instance

LEARNING_RATES = (1e-2, 3e-2, 2e-2, 1e-2, 3e-3, 1e-3)
EXTREMES = (3.4028235e38, -3.4028235e38, 1e-45, -0.0)


def _trained(
    subject: Subject, case: Case, configuration: Configuration, *, steps: int = 2, seed: int = 0
) -> Instance:
    """An instance in the middle of a run."""
    from falsifiers.training_state import window

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=seed)
    for step in range(steps):
        instance.train_step(window(configuration, seed, step, 16), lr=LEARNING_RATES[step])
    return instance


def _small(case: Case, configuration: Configuration) -> Configuration:
    from falsifiers.training_state import small

    return small(configuration, case.vocabulary, case.layers)


class _Edited:
    """A whole checkpoint, changed copies of it, and an instance of another seed to load them."""

    def __init__(
        self, subject: Subject, case: Case, configuration: Configuration, folder: Path
    ) -> None:
        from falsifiers.refused_files import Tried
        from falsifiers.training_state import PROVENANCE, state_of

        self._folder = folder
        self.saved = folder / "saved.apr"
        self.writer = _trained(subject, case, configuration)
        self.writer.save_checkpoint(self.saved, PROVENANCE)
        self.reader = _trained(subject, case, configuration, steps=1, seed=1)
        self._before = state_of(self.reader)
        self.tried: Tried = Tried()

    def parts(self) -> AprParts:
        """The content of the whole checkpoint, to be changed."""
        from falsifiers.apr_edits import taken_apart

        return taken_apart(self.saved)

    def try_bytes(self, label: str, content: bytes) -> None:
        """Try to load a file."""
        from falsifiers.training_state import PROVENANCE

        path = self._folder / "edited.apr"
        path.write_bytes(content)
        self.tried.each([(label, lambda: self.reader.load_checkpoint(path, PROVENANCE))])

    def try_edit(self, label: str, edit: Callable[[AprParts], None]) -> None:
        """Try to load a changed copy whose checksums match."""
        parts = self.parts()
        edit(parts)
        self.try_bytes(label, parts.packed())

    def changed(self) -> int:
        """How many tensors the refused files have changed."""
        from falsifiers.training_state import differing, state_of

        return len(differing(self._before, state_of(self.reader)))

    def unedited_loads(self) -> bool:
        """Whether the copy that nobody changed is taken, and is the state that was saved."""
        from falsifiers.training_state import PROVENANCE, differing, state_of

        path = self._folder / "control.apr"
        path.write_bytes(self.parts().packed())
        try:
            self.reader.load_checkpoint(path, PROVENANCE)
        except Exception:  # then the edits were not what was refused
            return False
        return not differing(state_of(self.writer), state_of(self.reader))


def _refusals(edited: _Edited) -> dict[str, Any]:
    """The measures that every test of edited files has."""
    return {
        "tried": edited.tried.count,
        "accepted": len(edited.tried.accepted),
        "crashed": len(edited.tried.crashed),
        "faults": edited.tried.faults(),
        "kinds": edited.tried.kinds(),
        "changed": edited.changed(),
        "control": edited.unedited_loads(),
    }


def falsify_newer_schema_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A file of a newer schema or container, or of the legacy one, is refused by its version."""
    from falsifiers.apr_edits import resealed

    edited = _Edited(subject, case, _small(case, configuration), tmp_path)
    whole = edited.saved.read_bytes()
    version = edited.parts().metadata["training"]["schema_version"]
    needles = {}
    for ahead in (1, 41):
        label = f"schema {version + ahead}"
        needles[label] = str(version + ahead)

        def newer(parts: AprParts, ahead: int = ahead) -> None:
            parts.metadata["training"]["schema_version"] = version + ahead

        edited.try_edit(label, newer)
    for label, header in {"3.0": b"APR\0\3\0", "2.1": b"APR\0\2\1", "APRN": b"APRN\2\0"}.items():
        needles[label] = label
        edited.try_bytes(label, resealed(header + whole[6:]))
    edited.try_edit("no schema", lambda parts: parts.metadata["training"].pop("schema_version"))
    measured(unnamed=len(edited.tried.unnamed(needles)), **_refusals(edited))


def falsify_checkpoint_is_the_whole_state(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """The file, by an independent reader, and a loaded instance hold every bit of the state."""
    import torch

    from falsifiers.apr_container import AprContainer
    from falsifiers.training_state import PROVENANCE, differing, state_of

    path = tmp_path / "saved.apr"
    devices = [] if case.device == "cpu" else [torch.cuda.current_device()]
    with torch.random.fork_rng(devices=devices):
        instance = _trained(subject, case, configuration, steps=case.steps, seed=case.seed)
        other = _trained(subject, case, configuration, steps=1, seed=case.seed + 1)
        instance.save_checkpoint(path, PROVENANCE)
        drawn = torch.rand(8, device=instance.device)
        state = state_of(instance)
        next_batch = other.load_checkpoint(path, PROVENANCE)
        drawn_again = torch.rand(8, device=instance.device)
    file = AprContainer(path)
    stored = {n: torch.from_numpy(file.tensor(n).copy()) for n in file.names}
    in_memory = {n: t.cpu() for n, t in state.items() if not n.endswith(".step")}
    measured(
        tensors=len(stored),
        differing_in_file=len(differing(in_memory, stored)),
        differing_after_load=len(differing(state, state_of(other))),
        still_moments=_still(in_memory),
        step_in_file=int(file.metadata["training"]["step"]),
        next_batch=next_batch,
        draws_repeat=torch.equal(drawn, drawn_again),
    )


def _still(state: dict[str, Tensor]) -> int:
    """Moments that are all zero: a load that leaves them out could not be told from a right one."""
    return sum(n.startswith("__training__.") and not bool(t.any()) for n, t in state.items())


def falsify_incomplete_state_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A file that lacks a weight, a moment or an entry of its training metadata is refused."""
    edited = _Edited(subject, case, _small(case, configuration), tmp_path)
    name = "model.layers.0.mlp.up_proj.weight"
    for absent in (name, *(f"__training__.optim.{name}.{m}" for m in ("exp_avg", "exp_avg_sq"))):
        edited.try_edit(absent, lambda parts, absent=absent: parts.tensors.pop(absent))  # type: ignore[misc]
    for key in edited.parts().metadata["training"]:
        edited.try_edit(key, lambda parts, key=key: parts.metadata["training"].pop(key))  # type: ignore[misc]
    edited.try_edit("training", lambda parts: parts.metadata.pop("training"))

    def weights_only(parts: AprParts) -> None:
        own = parts.tensors
        parts.tensors = {n: t for n, t in own.items() if not n.startswith("__training__.")}

    edited.try_edit("all moments", weights_only)
    measured(**_refusals(edited))


class _KilledHere(Exception):
    """Stands for a kill inside an accumulation window."""


def falsify_resumed_run_is_the_uninterrupted_one(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Saved, killed, loaded elsewhere and run on, a run has the bits of the one left alone."""
    from falsifiers.process_settings import nothing_reproducible
    from falsifiers.subject import Execution
    from falsifiers.training_state import PROVENANCE, differing, state_of, window

    def build(seed: int) -> Instance:
        return subject.build(
            configuration,
            device=case.device,
            dtype=case.dtype,
            seed=seed,
            execution=Execution(compiled=case.compiled, deterministic=True),
        )

    def train(instance: Instance, first: int, last: int) -> list[tuple[float, ...]]:
        metrics = [
            instance.train_step(
                window(configuration, case.seed, step, case.length), lr=LEARNING_RATES[step]
            )
            for step in range(first, last)
        ]
        return [(m.step, m.train_loss, m.grad_norm, m.lr) for m in metrics]

    path, half = tmp_path / "saved.apr", case.steps
    with nothing_reproducible():
        whole = build(case.seed)
        train(whole, 0, half)
        at_save = state_of(whole)
        expected = train(whole, half, 2 * half)
        final = state_of(whole)
        del whole
        killed = build(case.seed)
        train(killed, 0, half)
        killed.save_checkpoint(path, PROVENANCE)
        open_window = _killed_in_window(killed, window(configuration, case.seed, half, case.length))
        del killed
        resumed = build(case.seed + 1)
        train(resumed, 4, 5)
        next_batch = resumed.load_checkpoint(path, PROVENANCE)
        differing_at_load = len(differing(at_save, state_of(resumed)))
        ours = train(resumed, half, 2 * half)
    measured(
        killed_in_window=open_window,
        next_batch=next_batch,
        differing_at_load=differing_at_load,
        differing_steps=sum(one != other for one, other in zip(ours, expected, strict=True)),
        differing_tensors=len(differing(final, state_of(resumed))),
        tensors_moved=len(differing(at_save, final)),
        loss_difference=max(abs(a[1] - b[1]) for a, b in zip(ours, expected, strict=True)),
    )


def _killed_in_window(instance: Instance, batches: Any) -> bool:
    """Let the next step end by an exception in the backward of its second micro-batch."""
    seen = 0

    def die(gradient: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise _KilledHere
        return gradient

    instance.on_gradient("model.norm.weight", die)
    try:
        instance.train_step(batches)
    except _KilledHere:
        return True
    return False


def falsify_other_run_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A checkpoint is not loaded for another dataset, accumulation or seed."""
    from dataclasses import replace

    from falsifiers.training_state import PROVENANCE

    edited = _Edited(subject, case, _small(case, configuration), tmp_path)
    others = {
        "dataset": replace(PROVENANCE, dataset_sha256="5a" * 31 + "5b"),
        "accumulation": replace(PROVENANCE, accumulation=PROVENANCE.accumulation + 1),
        "seed": replace(PROVENANCE, seed=PROVENANCE.seed + 1),
    }
    for label, other in others.items():
        edited.tried.each(
            [(label, lambda other=other: edited.reader.load_checkpoint(edited.saved, other))]  # type: ignore[misc]
        )
    both = {"dataset": others["dataset"].dataset_sha256}
    stored = {"dataset": PROVENANCE.dataset_sha256}
    unnamed = edited.tried.unnamed(both) + edited.tried.unnamed(stored)
    measured(unnamed=len(unnamed), **_refusals(edited))


def falsify_non_finite_state_is_not_written(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """NaN or Inf anywhere in weights or moments is refused, and the old file stays."""
    import numpy as np
    import torch

    from falsifiers.apr_container import AprContainer
    from falsifiers.refused_files import Tried
    from falsifiers.training_state import PROVENANCE

    instance = _trained(subject, case, _small(case, configuration))
    path = tmp_path / "saved.apr"
    instance.save_checkpoint(path, PROVENANCE)
    old, tried, draw = path.read_bytes(), Tried(), np.random.default_rng(case.seed)
    for label, tensor in _live_tensors(instance, draw):
        flat = tensor.view(-1)
        for value in (float("nan"), float("inf"), -float("inf")):
            at = int(draw.integers(len(flat)))
            before = flat[at].clone()
            flat[at] = value
            tried.each(
                [(f"{value} in {label}", lambda: instance.save_checkpoint(path, PROVENANCE))]
            )
            flat[at] = before
    untouched = path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == [path.name]
    exact = np.array(EXTREMES, dtype=np.float32)
    instance.parameters()["model.norm.weight"][: len(exact)] = torch.from_numpy(exact)
    instance.save_checkpoint(path, PROVENANCE)
    kept = AprContainer(path).tensor("model.norm.weight")[: len(EXTREMES)]
    measured(
        tried=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        faults=tried.faults(),
        kinds=tried.kinds(),
        untouched=untouched,
        control=kept.tobytes() == exact.tobytes(),
    )


def _live_tensors(instance: Instance, draw: Any) -> list[tuple[str, Tensor]]:
    """A vector and a matrix: weights, first and second moments, live on the device."""
    weights, states = instance.parameters(), instance.optimizer_state()
    chosen = ["model.norm.weight", draw.choice([n for n, w in weights.items() if w.ndim == 2])]
    found = []
    for name in map(str, chosen):
        found += [(name, weights[name])]
        found += [(f"exp_avg of {name}", states[name].exp_avg)]
        found += [(f"exp_avg_sq of {name}", states[name].exp_avg_sq)]
    return found


def falsify_non_finite_file_is_not_read(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """NaN or Inf in a file whose checksums match is refused; the extremes of float32 are read."""
    import numpy as np

    from falsifiers.training_state import PROVENANCE

    edited = _Edited(subject, case, _small(case, configuration), tmp_path)
    draw = np.random.default_rng(case.seed)
    name = "model.layers.0.self_attn.o_proj.weight"
    # quiet, negative and signalling NaN, and both infinities
    patterns = (0x7FC00000, 0xFFFFFFFF, 0x7F800001, 0x7F800000, 0xFF800000)
    for stored in (name, *(f"__training__.optim.{name}.{m}" for m in ("exp_avg", "exp_avg_sq"))):
        for bits in patterns:

            def spoil(parts: AprParts, stored: str = stored, bits: int = bits) -> None:
                flat = parts.tensors[stored].reshape(-1).view(np.uint32)
                flat[int(draw.integers(flat.size))] = bits

            edited.try_edit(f"{bits:#x} in {stored}", spoil)
    measures = _refusals(edited)
    parts = edited.parts()
    parts.tensors["model.norm.weight"][: len(EXTREMES)] = EXTREMES
    path = tmp_path / "extremes.apr"
    path.write_bytes(parts.packed())
    edited.reader.load_checkpoint(path, PROVENANCE)
    read = edited.reader.parameters()["model.norm.weight"][: len(EXTREMES)].cpu().numpy()
    extremes = read.tobytes() == np.array(EXTREMES, dtype=np.float32).tobytes()
    measured(extremes=extremes, **measures)


def falsify_written_shapes_fit_the_configuration(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """A file's tensors and metadata are those of the configuration; no other model takes it."""
    from falsifiers.apr_container import AprContainer
    from falsifiers.reference.model import parameter_shapes
    from falsifiers.refused_files import Tried
    from falsifiers.training_state import MOMENTS, PROVENANCE, differing, state_of

    own = _small(case, configuration)
    path = tmp_path / "saved.apr"
    _trained(subject, case, own).save_checkpoint(path, PROVENANCE)
    file = AprContainer(path)
    expected = dict(parameter_shapes(own))
    for name, shape in list(expected.items()):
        expected |= {f"__training__.optim.{name}.{moment}": shape for moment in MOMENTS}
    written = {name: file.shape(name) for name in file.names}
    misfits = [n for n in expected.keys() | written.keys() if expected.get(n) != written.get(n)]
    misstated = [field for field in own if file.metadata.get(field) != own[field]]
    others = {
        "num_layers": own["num_layers"] + 1,
        "vocab_size": own["vocab_size"] + 1,
        "intermediate_size": own["intermediate_size"] - 8,
        "rope_theta": own["rope_theta"] / 2,
        "rms_norm_eps": own["rms_norm_eps"] * 10,
        "attention_bias": not own["attention_bias"],
        "tie_word_embeddings": not own["tie_word_embeddings"],
    }
    tried, changed = Tried(), 0
    for field, value in others.items():
        other = _trained(subject, case, {**own, field: value}, steps=0, seed=1)
        before = state_of(other)
        tried.each([(field, lambda other=other: other.load_checkpoint(path, PROVENANCE))])  # type: ignore[misc]
        changed += len(differing(before, state_of(other)))
    measured(
        tensors=len(written),
        misfits=len(misfits),
        misstated=len(misstated),
        misstated_fields=", ".join(misstated),
        tried=tried.count,
        accepted=len(tried.accepted),
        crashed=len(tried.crashed),
        faults=tried.faults(),
        changed=changed,
    )


def falsify_misshapen_file_is_not_read(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Tensors that contradict the configuration in the same file are refused."""
    edited = _Edited(subject, case, _small(case, configuration), tmp_path)

    def reshaped(
        name: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> Callable[[AprParts], None]:
        def edit(parts: AprParts) -> None:
            parts.tensors[name] = change(parts.tensors[name]).copy()

        return edit

    table, up = "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"
    edited.try_edit("table transposed", reshaped(table, lambda t: t.T))
    edited.try_edit("matrix transposed", reshaped(up, lambda t: t.T))
    edited.try_edit("matrix as a vector", reshaped(up, lambda t: t.reshape(-1)))
    edited.try_edit("one row less", reshaped(up, lambda t: t[:-1]))
    edited.try_edit("one value for all", reshaped("model.norm.weight", lambda t: t[:1]))
    for moment in ("exp_avg", "exp_avg_sq"):
        stored = f"__training__.optim.{up}.{moment}"
        edited.try_edit(f"{moment} transposed", reshaped(stored, lambda t: t.T))
        edited.try_edit(f"{moment} of one row", reshaped(stored, lambda t: t[:1]))
    for field in ("hidden_size", "intermediate_size", "vocab_size", "num_layers", "head_dim"):

        def restated(parts: AprParts, field: str = field) -> None:
            parts.metadata[field] += 8

        edited.try_edit(field, restated)
    measured(**_refusals(edited))


def falsify_files_are_canonical(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """Names are sorted, and a file that was loaded is saved again byte for byte."""
    import torch

    from falsifiers.apr_container import AprContainer
    from falsifiers.training_state import PROVENANCE

    edited = _Edited(subject, case, _small(case, configuration), tmp_path)
    whole = edited.saved.read_bytes()
    parts = edited.parts()
    parts.reverse_data = True
    parts.metadata = dict(reversed(parts.metadata.items()))
    disordered = tmp_path / "disordered.apr"
    disordered.write_bytes(parts.packed())
    again = []
    for source in (edited.saved, disordered):
        torch.rand(1)  # a random state of its own, which the file replaces
        edited.reader.load_checkpoint(source, PROVENANCE)
        path = tmp_path / "again.apr"
        edited.reader.save_checkpoint(path, PROVENANCE)
        again.append(path.read_bytes())
    names = AprContainer(edited.saved).names
    measured(
        is_sorted=names == sorted(names, key=str.encode),
        same_bytes=again[0] == whole,
        disordered_differs=disordered.read_bytes() != whole,
        made_canonical=again[1] == whole,
    )
