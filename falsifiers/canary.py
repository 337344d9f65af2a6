"""A cheap clean measurement, repeated after every defect to show that nothing was left behind."""

from __future__ import annotations

import hashlib
import importlib
import sys

from falsifiers.suite import SUITE

_CONFIGURATION = {
    "architecture": "qwen2",
    "hidden_size": 32,
    "num_layers": 2,
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


def measure() -> str:
    """SHA-256 over two training steps, an evaluation and the weights after them, on the CPU.

    Two, since what one step leaves behind shows in the next: moments, gradients not cleared.
    """
    import torch

    from falsifiers.subject import Batch

    module, _, attribute = SUITE.subject("bundled").partition(":")
    subject = getattr(importlib.import_module(module), attribute)()
    instance = subject.build(_CONFIGURATION, device="cpu", dtype="float32", seed=7)
    generator = torch.Generator().manual_seed(11)
    digest = hashlib.sha256()
    for _ in range(2):
        batch = Batch(torch.randint(97, (2, 17), generator=generator))
        metrics = instance.train_step(batch)
        digest.update(f"{metrics.train_loss!r} {metrics.grad_norm!r}".encode())
    digest.update(f"{instance.evaluate([batch])!r}".encode())
    for name, tensor in sorted(instance.parameters().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def reset_compiler() -> None:
    """Drop compiled code: torch.compile would go on running what was compiled under a defect."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
