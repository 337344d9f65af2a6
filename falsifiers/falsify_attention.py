"""Is attention a causal, scaled, weighted mean of the values, and are its gradients those?"""

from __future__ import annotations

from falsifiers.fixtures import Case, Measured, Subject


def falsify_rows_sum_to_one(subject: Subject, case: Case, measured: Measured) -> None:
    """Each row of weights sums to one, and v's gradient adds up to the gradient that came in."""
    from falsifiers.attention_probes import (
        attention_rows,
        operators_of,
        outputs_and_gradients,
        random_heads,
        sum_groups,
    )
    from falsifiers.errors import relative_error

    operators, heads = operators_of(subject, case), random_heads(case)
    rows = attention_rows(operators, heads.q, heads.k)
    given = heads.grad_out.abs()  # of one sign: sums that cancel would show rounding only
    _, gradients = outputs_and_gradients(operators, heads.q, heads.k, heads.v, given)
    received = sum_groups(given.double().sum(2), heads.group)
    measured(
        sum_error=(rows.sum(-1) - 1.0).abs().max().item(),
        value_gradient_error=relative_error(gradients["v"].double().sum(2), received),
    )


def falsify_output_is_among_the_values(subject: Subject, case: Case, measured: Measured) -> None:
    """No output leaves the range of the values that its query may see, by four ulp of them."""
    import torch

    from falsifiers.attention_probes import operators_of, random_heads

    heads = random_heads(case)
    # A level of its own for each key/value head: another head's values are then out of range.
    level = torch.arange(1, case.kv_heads + 1, device=case.device)[None, :, None, None]
    v = (case.level * level + heads.v).to(heads.v.dtype)
    out = operators_of(subject, case).attention(heads.q, heads.k, v).double()
    wide = v.double().repeat_interleave(heads.group, dim=1)
    least, most = wide.cummin(2).values, wide.cummax(2).values
    exponent = torch.maximum(least.abs(), most.abs()).log2().floor()
    ulp = torch.finfo(v.dtype).eps * 2.0**exponent
    beyond = torch.maximum(least - out, out - most) / ulp
    measured(
        excess_ulps=beyond.max().clamp(min=0.0).item(),
        distinct_levels=len({round(x) for x in wide[0, :, :, :].mean((1, 2)).tolist()}),
    )


def falsify_scores_are_scaled(subject: Subject, case: Case, measured: Measured) -> None:
    """Log-weights rise with q·k at the rate 1/√D, and so do the gradients of q and k."""
    import math

    from falsifiers.attention_probes import (
        attention_rows,
        exact_outputs_and_gradients,
        operators_of,
        outputs_and_gradients,
        random_heads,
    )

    operators, heads = operators_of(subject, case), random_heads(case)
    last = attention_rows(operators, heads.q, heads.k)[:, -1].log()
    keys = heads.k.double().repeat_interleave(heads.group, dim=1)[0]
    products = (keys @ heads.q.double()[0, :, -1, :, None]).squeeze(-1)
    x, y = (t - t.mean(-1, keepdim=True) for t in (products, last))
    scales = (x * y).sum(-1) / x.square().sum(-1)
    _, ours = outputs_and_gradients(operators, heads.q, heads.k, heads.v, heads.grad_out)
    _, exact = exact_outputs_and_gradients(heads)
    gains = [float((ours[n].double() * exact[n]).sum() / exact[n].square().sum()) for n in "qk"]
    measured(
        scale_error=(scales * math.sqrt(case.head_dim) - 1.0).abs().max().item(),
        query_gradient_gain_error=abs(gains[0] - 1.0),
        key_gradient_gain_error=abs(gains[1] - 1.0),
    )


def falsify_attention_matches_float64(subject: Subject, case: Case, measured: Measured) -> None:
    """Output and gradients of q, k and v are the oracle's, however long, grouped and sharp."""
    from falsifiers.attention_probes import (
        exact_outputs_and_gradients,
        gradient_errors,
        kernel_errors,
        operators_of,
        outputs_and_gradients,
        random_heads,
    )
    from falsifiers.errors import relative_error

    heads = random_heads(case)
    out, gradients = outputs_and_gradients(
        operators_of(subject, case), heads.q, heads.k, heads.v, heads.grad_out
    )
    exact_out, exact = exact_outputs_and_gradients(heads)
    errors, plain = gradient_errors(heads, gradients, exact), kernel_errors(heads)
    dtypes = {str(t.dtype).removeprefix("torch.") for t in (out, *gradients.values())}
    measured(
        output_error=relative_error(out, exact_out),
        query_gradient_error=errors["q"],
        key_gradient_error=errors["k"],
        value_gradient_error=errors["v"],
        plain_output_error=plain["out"],
        plain_query_gradient_error=plain["q"],
        plain_key_gradient_error=plain["k"],
        plain_value_gradient_error=plain["v"],
        result_dtypes=",".join(sorted(dtypes)),
    )


def falsify_the_future_is_not_seen(subject: Subject, case: Case, measured: Measured) -> None:
    """Weights lie in [0, 1], none on the future; what comes later changes no bit of the past."""
    import torch

    from falsifiers.attention_probes import (
        attention_rows,
        operators_of,
        outputs_and_gradients,
        random_heads,
    )
    from falsifiers.operator_trials import Errors

    operators, heads = operators_of(subject, case), random_heads(case)
    rows = attention_rows(operators, heads.q, heads.k)
    before = operators.attention(heads.q, heads.k, heads.v)
    found, changed, changes = Errors(), 0, []
    for index, (now, outburst) in enumerate(_interruptions(case)):
        past_only = heads.grad_out.clone()
        past_only[:, :, now:] = 0.0
        later = [x.clone() for x in (heads.q, heads.k, heads.v)]
        for tensor, factor in zip(later, (1.0, outburst, outburst), strict=True):
            tensor[:, :, now:] = -factor * tensor[:, :, now:].flip(2)
        after, sent = outputs_and_gradients(operators, later[0], later[1], later[2], past_only)
        differing = int(torch.ne(before, after)[:, :, :now].sum())
        where = f"example {index}: from token {now} on, {outburst:.4g} times"
        found.note("changed", differing, where)
        found.note("gradient", max(float(g[:, :, now:].abs().max()) for g in sent.values()), where)
        changed += differing
        changes.append(float((before - after)[:, :, now:].double().abs().max()))
    measured(
        least_weight=rows.min().item(),
        largest_weight=rows.max().item(),
        future_weight=rows.triu(diagonal=1).abs().max().item(),
        changed_outputs=changed,
        future_gradient=found.largest["gradient"],
        worst=found.worst(),
        interruptions=len(changes),
        later_change=max(changes),
    )


def _interruptions(case: Case) -> list[tuple[int, float]]:
    """The first token that is another one, and what k and v are multiplied by from there on."""
    from hypothesis import strategies as st

    from falsifiers.drawn_inputs import examples, integers, powers_of_ten

    last, half = case.length - 1, case.length // 2
    signed = st.tuples(powers_of_ten(0, 6), st.sampled_from([-1.0, 1.0])).map(lambda f: f[0] * f[1])
    return examples(
        st.tuples(integers(1, last, (half, 64, 128, 256)), signed),
        case.examples,
        case.seed,
        # A later key may be the opposite of all that earlier queries look for: one sign is not.
        always=[(now, sign * case.outburst) for now in (half, 1, last) for sign in (1.0, -1.0)],
    )
