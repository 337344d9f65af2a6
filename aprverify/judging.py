"""The claims of an entry on what was measured, for its run and for whoever rechecks its row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aprverify.contract.claims import ClaimBroken, Outcome, evaluate
from aprverify.plan import Entry


def judge(
    entry: Entry, configurations: Mapping[str, Mapping[str, Any]], measures: Mapping[str, Any]
) -> Iterator[tuple[str, Outcome | ClaimBroken]]:
    """Each comparison of the entry's test, in the order of the contract, with its claim.

    Names are looked up in the configuration's fields, then the contract's constants, tolerances of
    the case's dtype, the case's parameters and the measures; what comes later wins. A comparison
    that cannot be made yields why.
    """
    test = entry.test
    parameters = entry.case.parameters
    dtype = str(parameters.get("dtype"))
    values = {
        **configurations.get(str(parameters.get("arch")), {}),
        **entry.contract.constants,
        **{name: by[dtype] for name, by in test.tolerances.items() if dtype in by},
        **parameters,
        **measures,
    }
    units = {name: measure.unit for name, measure in test.measures.items()}
    for claim in test.claims:
        for comparison in claim.comparisons:
            try:
                yield claim.id, evaluate(comparison, values, units)
            except ClaimBroken as error:
                yield claim.id, error
