"""Does a checkpoint that the trainer wrote hold the frozen architecture, and the model itself?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falsifiers.fixtures import Case, Configuration, Measured, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from falsifiers.apr_container import AprContainer


def falsify_checkpoint_has_the_frozen_architecture(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """All nine invariants hold of the file, by a reader that shares nothing with its writer.

    The model has taken steps, so that what is tied or distinct is so in training and not by its
    initialisation alone.
    """
    from falsifiers.apr_container import AprContainer
    from falsifiers.errors import relative_error
    from falsifiers.inputs import random_batch, roughen
    from falsifiers.reference.model import parameter_shapes
    from falsifiers.subject_parts import Provenance

    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(instance, case.seed, case.roughness)
    for step in range(case.steps):
        batch = random_batch(configuration, 2, case.length, 10 * case.seed + step)
        instance.train_step(batch, lr=1e-3)
    path = tmp_path / "trained.apr"
    instance.save_checkpoint(path, Provenance("0" * 64, 1, case.seed))
    file = AprContainer(path)
    stated, weights = file.metadata, _weights(file, instance.device)
    tokens = batch.tokens[:, :-1].to(instance.device)
    exact = _logits(weights, stated, tokens)
    path.unlink()  # gigabytes at full scale, and kept by pytest otherwise
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    expected = parameter_shapes(configuration)
    rows, columns = configuration["vocab_size"], configuration["hidden_size"]
    tables = list(shapes.values()).count((rows, columns))
    stored = sum(weight.numel() for weight in weights.values())
    measured(
        stored_count=stored,
        nominal_count=stored + rows * columns * (tables == 1),
        width_of_heads=stated["num_heads"] * stated["head_dim"],
        heads_left_over=stated["num_heads"] % stated["num_kv_heads"],
        theta=stated["rope_theta"],
        tied=stated["tie_word_embeddings"],
        tables=tables,
        rows_stated=stated["vocab_size"],
        embedding_rows=shapes["model.embed_tokens.weight"][0],
        embedding_columns=shapes["model.embed_tokens.weight"][1],
        other_shapes=sum(shapes.get(n) != expected.get(n) for n in shapes.keys() | expected.keys()),
        gate_to_up=_least_distance(weights),
        biases=sum(name.endswith("bias") for name in shapes),
        logit_error=float("inf")
        if exact is None
        else relative_error(instance.logits(tokens), exact),
    )


def _weights(file: AprContainer, device: str) -> dict[str, Tensor]:
    import numpy as np
    import torch

    names = [name for name in file.names if not name.startswith("__training__.")]
    return {name: torch.from_numpy(np.array(file.tensor(name))).to(device) for name in names}


def _logits(weights: Mapping[str, Tensor], stated: Mapping[str, Any], tokens: Tensor) -> Any:
    """The oracle's logits of what the file says it holds; None if it does not hold that."""
    from falsifiers.reference.model import logits, parameter_shapes

    shapes = parameter_shapes(stated)
    if any(n not in weights or tuple(weights[n].shape) != shape for n, shape in shapes.items()):
        return None
    return logits({name: weights[name] for name in shapes}, stated, tokens)


def _least_distance(weights: Mapping[str, Tensor]) -> float:
    """Smallest ‖gate − up‖ / ‖gate‖ over the layers that have both in one shape, else 0."""
    from falsifiers.errors import relative_error

    gates = [name for name in weights if name.endswith(".mlp.gate_proj.weight")]
    ups = [weights.get(name.replace("gate_proj", "up_proj")) for name in gates]
    return min(
        (
            0.0
            if up is None or up.shape != weights[gate].shape
            else relative_error(up, weights[gate])
            for gate, up in zip(gates, ups, strict=True)
        ),
        default=0.0,
    )
