"""A draw that takes from each stratum, file by kind of change, what is its due.

Sites are drawn, and of each site one mutant. A stratum of s sites among S gets the whole part of
n · s / S; what is then missing goes to strata drawn in proportion to what their share lacks.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from aprverify.mutants.population import Mutant, Population

Stratum = tuple[str, str]


def sites_of(mutants: Iterable[Mutant]) -> dict[Stratum, list[list[Mutant]]]:
    """The mutants of each site, by stratum."""
    sites: dict[tuple[object, ...], list[Mutant]] = {}
    for mutant in mutants:
        sites.setdefault(mutant.site, []).append(mutant)
    strata: dict[Stratum, list[list[Mutant]]] = {}
    for alternatives in sites.values():
        strata.setdefault(alternatives[0].stratum, []).append(alternatives)
    return strata


def draw(population: Population, size: int, seed: int) -> tuple[list[Mutant], Counter[str]]:
    """`size` mutants in random order, or all sites where there are fewer; and what was passed over.

    A mutant whose text is no Python, or means the same, is passed over for the next of its site,
    and a site without another for the next of its stratum.
    """
    chance = random.Random(seed)
    strata = sites_of(population.by_id.values())
    passed: Counter[str] = Counter()
    drawn: list[Mutant] = []
    for stratum, amount in allocation(strata, size, chance).items():
        found = _valid(population, strata[stratum], chance, passed)
        drawn += [mutant for mutant, _ in zip(found, range(amount), strict=False)]
    chance.shuffle(drawn)
    return drawn, passed


def allocation(
    strata: Mapping[Stratum, Sequence[object]], size: int, chance: random.Random
) -> dict[Stratum, int]:
    """How many of each stratum are drawn."""
    total = sum(map(len, strata.values()))
    size = min(size, total)
    due = {name: size * len(sites) / total for name, sites in strata.items()}
    given = {name: int(share) for name, share in due.items()}
    lacking = {name: due[name] - given[name] for name in due if due[name] > given[name]}
    # Efraimidis and Spirakis 2006: the largest keys u^(1/w) are a weighted draw.
    keys = {name: chance.random() ** (1 / lack) for name, lack in lacking.items()}
    for name in sorted(keys, key=keys.__getitem__, reverse=True)[: size - sum(given.values())]:
        given[name] += 1
    return given


def _valid(
    population: Population,
    sites: Sequence[Sequence[Mutant]],
    chance: random.Random,
    passed: Counter[str],
) -> Iterator[Mutant]:
    for alternatives in chance.sample(sites, len(sites)):
        for mutant in chance.sample(alternatives, len(alternatives)):
            if population.sources[mutant.file].after(mutant) is not None:
                yield mutant
                break
            passed["no Python, or the same program"] += 1
