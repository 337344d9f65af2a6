"""How mutants are drawn."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from aprverify.mutants.population import Population, enumerate_mutants
from aprverify.mutants.sample import allocation, draw, sites_of
from aprverify.mutants.settings import Settings


def _population(root: Path) -> Population:
    (root / "a.py").write_text("".join(f"a{i} = b{i} + {i}\n" for i in range(40)))
    (root / "b.py").write_text("".join(f"a{i} = b{i} < c{i}\n" for i in range(10)))
    settings = Settings(root / "mutants.yaml", "p", (), ("a.py", "b.py"), {}, {}, {})
    return enumerate_mutants(root, settings)


def test_each_stratum_gets_its_due(tmp_path: Path) -> None:
    """40 sums, 40 numbers and 10 comparisons: of 45 sites there are 20, 20 and 5."""
    drawn, _ = draw(_population(tmp_path), 45, seed=1)
    assert Counter(m.stratum for m in drawn) == {
        ("a.py", "arithmetic"): 20,
        ("a.py", "number"): 20,
        ("b.py", "comparison"): 5,
    }


def test_no_site_is_drawn_twice(tmp_path: Path) -> None:
    """Eleven signs in one place count once."""
    population = _population(tmp_path)
    drawn, _ = draw(population, 10_000, seed=0)
    sites = [m.site for m in drawn]
    total = sum(map(len, sites_of(population.by_id.values()).values()))
    assert len(set(sites)) == len(sites) == total == 90


def test_a_seed_names_a_draw(tmp_path: Path) -> None:
    """The same again, and others under another seed."""
    population = _population(tmp_path)
    one, again, other = (draw(population, 30, seed)[0] for seed in (3, 3, 4))
    assert one == again != other


def test_what_is_left_over_goes_by_chance_in_proportion() -> None:
    """Strata too small for a whole mutant are not left out for ever."""
    strata = {("f", str(i)): [0] * (1 + i % 3) for i in range(60)}
    given: Counter[tuple[str, str]] = Counter()
    for seed in range(300):
        one = allocation(strata, 30, random.Random(seed))
        assert sum(one.values()) == 30
        given.update(one)
    assert all(given[name] > 0 for name in strata)
    by_size = [sum(given["f", str(i)] for i in range(60) if i % 3 == k) for k in range(3)]
    assert by_size[0] < by_size[1] < by_size[2]
