"""Seeds, bounds and the order of a campaign, by themselves."""

from __future__ import annotations

import math

import pytest

from aprverify.campaign.bounds import upper_bound
from aprverify.campaign.schedule import Schedule, schedule
from aprverify.campaign.seeds import LOWEST, SPAN, drawn
from aprverify.campaign.targets import Target, targets_of
from aprverify.contract.lint import load_suite
from aprverify.contract.model import LARGEST_SEED
from aprverify.plan import make_plan
from tests.conftest import Toy, contract, falsification


def test_no_seed_is_drawn_twice_or_named_by_a_contract() -> None:
    """Of ten thousand numbers of a case; other cases have others, the same case the same."""
    seeds = [drawn("TEST[device=cpu]", number) for number in range(10_000)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) > LARGEST_SEED and max(seeds) < LOWEST + SPAN
    assert drawn("TEST[device=cpu]", 7) == seeds[7]
    assert drawn("TEST[device=cpu]", SPAN // 2) != seeds[0], "an even step comes round too soon"
    assert not {drawn("TEST[device=cuda]", number) for number in range(100)} & set(seeds[:100])


@pytest.mark.parametrize(
    ("failures", "trials", "bound"),
    [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (0, 1000, 0.003),
        # P(at most k of N) is 0.05 there: the definition, by an independent sum below.
        (1, 1000, None),
        (5, 100, None),
        (10, 10, 1.0),
    ],
)
def test_the_upper_bound_is_the_rule_of_three_or_clopper_and_pearson(
    failures: int, trials: int, bound: float | None
) -> None:
    """Without a failure 3/N; with some, where so few are seen once in twenty."""
    found = upper_bound(failures, trials)
    if bound is not None:
        assert found == pytest.approx(bound)
        return
    terms = (
        math.comb(trials, k) * found**k * (1 - found) ** (trials - k) for k in range(failures + 1)
    )
    assert math.fsum(terms) == pytest.approx(0.05, rel=1e-6)


def _targets(toy: Toy) -> list[Target]:
    toy.contract(
        contract(
            falsification_tests=[
                falsification(
                    f"FALSIFY-TOY-00{number}",
                    "falsify_toy.falsify_sum",
                    invariants=["INV-TOY-001"],
                    cases=[{"scale": "full", "matrix": {"device": ["cpu"], **matrix}}],
                )
                for number, matrix in enumerate(({"seed": [0]}, {"size": [1, 2], "seed": [0]}))
            ]
        )
    )
    return targets_of(make_plan(load_suite(toy.suite).contracts, teeth="none"), "cpu", ())


def _order(plan: Schedule, seconds: float = 1.0) -> list[tuple[str, int]]:
    order = []
    while (lot := plan.next()) is not None:
        order.append((lot.target.key, len(lot.seeds)))
        plan.done(lot, len(lot.seeds), seconds * len(lot.seeds), worthwhile=True)
    return order


@pytest.mark.usefixtures("importable")
def test_the_cheapest_test_reaches_its_number_first(toy: Toy) -> None:
    """And the cases of a test come to their share together."""
    dear, *cheap = targets = _targets(toy)
    seconds = {dear.key: 1.0, **{target.key: 0.5 for target in cheap}}
    order = _order(schedule(targets, 8, 0, seconds))
    # As dear as each other in all: the one that has begun is the cheaper one from then on.
    keys = [key for key, _ in order]
    first = {key for key in keys[: len(keys) // 2]}
    assert first in ({dear.key}, {target.key for target in cheap}) or keys[0] != keys[-1]
    assert sum(size for key, size in order if key == dear.key) == 8
    for target in cheap:
        assert sum(size for key, size in order if key == target.key) == 4
    much = {dear.key: 100.0, **{target.key: 0.5 for target in cheap}}
    assert [key for key, _ in _order(schedule(targets, 8, 0, much))][-1] == dear.key


@pytest.mark.usefixtures("importable")
def test_what_tells_nothing_is_given_up(toy: Toy) -> None:
    """A case without a verdict is not tried to its number, and a campaign still completes."""
    targets = _targets(toy)[:1]
    plan = schedule(targets, 1000, 0, {})
    lot = plan.next()
    assert lot is not None and len(lot.seeds) < 5
    plan.done(lot, 0, 1.0, worthwhile=False)
    assert plan.next() is None and plan.complete
