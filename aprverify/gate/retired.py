"""Which gates blocked shipping when the evidence was made, and no longer do in the checkout.

A gate that is declared away is not asked for, so that nothing of it could fail: whoever drops one
must say so, and answer for it, in the policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from aprverify.evidence.records import ContractRecord, Run
from aprverify.gate.policy import Policy, Retired


@dataclass(frozen=True)
class Retraction:
    """A gate that blocks shipping in a run, and not here.

    Attributes:
        gate: its id.
        contract: the contract that declares it in the run.
        what: what became of it.
        runs: the runs in which it blocks shipping.
        retired: the policy's word for it, in force or not.
        in_force: whether that word still holds.
    """

    gate: str
    contract: str
    what: str
    runs: tuple[str, ...]
    retired: Retired | None
    in_force: bool

    @property
    def blocks(self) -> bool:
        """Whether the policy's gate fails because of it."""
        return not self.in_force


def retractions(
    runs: Sequence[Run], contracts: Sequence[ContractRecord], policy: Policy, today: date
) -> tuple[Retraction, ...]:
    """Every gate that blocks shipping in one of `runs`, and that the policy no longer asks for.

    None where the policy names its gates one by one: then no contract decides what is required.
    """
    if not policy.follows_contracts:
        return ()
    here = {gate.id: gate for contract in contracts for gate in contract.gates}
    blocked: dict[str, tuple[str, list[str]]] = {}
    for contract, gate, run in _blocking(runs):
        if gate not in here or not policy.requires(here[gate]):
            blocked.setdefault(gate, (contract, []))[1].append(run)
    declared = {contract.id for contract in contracts}
    found = []
    for gate, (contract, names) in sorted(blocked.items()):
        if gate in here:
            what = "does not block shipping here"
        elif contract in declared:
            what = f"is gone from {contract} here"
        else:
            what = f"is gone here, and its contract {contract} with it"
        retired = policy.retired.get(gate)
        in_force = retired is not None and today <= retired.expires
        found.append(Retraction(gate, contract, what, tuple(names), retired, in_force))
    return tuple(found)


def _blocking(runs: Sequence[Run]) -> Iterator[tuple[str, str, str]]:
    for run in runs:
        for contract in run.contracts:
            for gate in contract.gates:
                if gate.ship_blocking:
                    yield contract.id, gate.id, run.header.run_id
