"""The training loss in float64. The shift from inputs to targets is made here, once."""

from __future__ import annotations

from torch import Tensor

from .errors import OracleInputError
from .model import Configuration, Parameters, logits
from .operators import token_losses


def mean_loss(
    parameters: Parameters, config: Configuration, tokens: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Mean negative log-likelihood per counted target token, float64 scalar, nats.

    Args:
        parameters: floating tensors by Hugging Face name.
        config: the fields of a subject's configuration.
        tokens: int64 ``[B, T + 1]``; position t predicts token t + 1.
        mask: bool ``[B, T]``, True where the target counts. None counts all.

    Raises:
        OracleInputError: no target counts, a shape does not fit, or as `logits`.
    """
    check_batch(tokens, mask)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    losses = token_losses(logits(parameters, config, inputs), targets, mask)
    return losses.sum() / losses.numel()


def check_batch(tokens: Tensor, mask: Tensor | None) -> None:
    """Refuse a batch without a target.

    Raises:
        OracleInputError: naming the shapes.
    """
    if tokens.ndim != 2 or tokens.shape[0] < 1 or tokens.shape[1] < 2:
        raise OracleInputError(f"tokens are {tuple(tokens.shape)}; pass [B >= 1, T + 1 >= 2]")
    if mask is None:
        return
    targets = (tokens.shape[0], tokens.shape[1] - 1)
    if tuple(mask.shape) != targets:
        raise OracleInputError(f"mask is {tuple(mask.shape)}; the targets are {targets}")
    if not bool(mask.any()):
        raise OracleInputError("the mask keeps no target; a mean over none does not exist")
