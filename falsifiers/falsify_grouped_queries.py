"""Do query heads that share a key/value head compute what full attention would?"""

from __future__ import annotations

from falsifiers.fixtures import Case, Configuration, Measured, Subject


def falsify_groups_are_repeated_heads(subject: Subject, case: Case, measured: Measured) -> None:
    """Shared key/value heads are the same as repeated ones, and as each query head by itself."""
    import torch

    from falsifiers.attention_probes import (
        gradient_errors,
        operators_of,
        outputs_and_gradients,
        random_heads,
        sum_groups,
    )
    from falsifiers.errors import relative_error, worst_of

    operators, heads = operators_of(subject, case), random_heads(case)
    q, k, v, given, group = heads.q, heads.k, heads.v, heads.grad_out, heads.group
    out, gradients = outputs_and_gradients(operators, q, k, v, given)
    keys, values = (x.repeat_interleave(group, dim=1) for x in (k, v))
    full, full_gradients = outputs_and_gradients(operators, q, keys, values, given)
    summed = {
        n: g.double() if n == "q" else sum_groups(g.double(), group)
        for n, g in full_gradients.items()
    }
    alone = [
        operators.attention(q[:, h : h + 1], *(x[:, h // group, None] for x in (k, v)))
        for h in range(case.heads)
    ]
    error, worst = worst_of(gradient_errors(heads, gradients, summed).items())
    measured(
        output_error=relative_error(out, full),
        gradient_error=error,
        worst_gradient=worst,
        alone_error=relative_error(out, torch.cat(alone, 1)),
    )


def falsify_indivisible_heads_are_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Key/value heads that do not divide the query heads are refused when the model is built."""
    from falsifiers.refusals import attempt

    def build(kv_heads: int) -> object:
        config = {**configuration, "num_heads": case.heads, "num_kv_heads": kv_heads}
        return subject.build(config, device=case.device, dtype=case.dtype, seed=case.seed)

    refusal, fitting = attempt(lambda: build(case.kv_heads)), attempt(lambda: build(case.fitting))
    measured(
        refused=refusal.refused,
        message=refusal.message,
        kind=refusal.kind,
        fitting_refused=fitting.refused,
    )


def falsify_one_key_value_head_serves_all(subject: Subject, case: Case, measured: Measured) -> None:
    """Each query head attends to the one head, and the one head learns from each."""
    import torch

    from falsifiers.attention_probes import (
        gradient_errors,
        operators_of,
        outputs_and_gradients,
        random_heads,
    )
    from falsifiers.errors import relative_error, worst_of

    operators, heads = operators_of(subject, case), random_heads(case)
    k, v = heads.k, heads.v
    out, gradients = outputs_and_gradients(operators, heads.q, k, v, heads.grad_out)
    queries, received = (torch.tensor_split(x, case.heads, 1) for x in (heads.q, heads.grad_out))
    alone = [
        outputs_and_gradients(operators, q, k, v, given)
        for q, given in zip(queries, received, strict=True)
    ]
    expected = {n: torch.stack([g[n].double() for _, g in alone]).sum(0) for n in "kv"}
    error, worst = worst_of(gradient_errors(heads, gradients, expected).items())
    twins = operators.attention(heads.q[:, :1].expand_as(heads.q).contiguous(), k, v)
    other = operators.attention(heads.q, k, v + 1.0)
    measured(
        output_error=relative_error(out, torch.cat([one for one, _ in alone], 1)),
        gradient_error=error,
        worst_gradient=worst,
        twin_error=relative_error(twins, twins[:, :1].expand_as(twins)),
        least_response=float((other - out).double().mean((0, 2, 3)).min()),
        largest_response=float((other - out).double().mean((0, 2, 3)).max()),
    )
