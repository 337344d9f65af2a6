"""Is a contract of initial weights one that can fail, and does the trainer cite ids that it has?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from falsifiers.fixtures import Case, Configuration, Measured, Subject


def falsify_contract_is_sound_and_cited(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration, tmp_path: Path
) -> None:
    """The linter accepts the contract and no spoiled copy; each id in a refusal stands in it."""
    import re
    from copy import deepcopy
    from dataclasses import replace

    from aprverify.contract import lint
    from aprverify.contract.document import read_document
    from falsifiers.suite import SUITE

    document = read_document(SUITE.contracts_dir / case.contract)
    known = read_document(SUITE.configurations).data["configurations"]
    accepted = []
    for number, (name, spoil) in enumerate(_MUTATIONS.items()):
        data = deepcopy(document.data)
        spoil(data, data["falsification_tests"][number % len(data["falsification_tests"])])
        if not lint.lint_document(replace(document, data=data), known):
            accepted.append(name)
    tests = {t["id"].partition(".")[0] for t in document.data["falsification_tests"]}
    numbered = {f"FALSIFY-APR-PRETRAIN-{case.family}-{n:03}" for n in range(1, 11)}
    messages = "\n".join(_refusals(subject, configuration, tmp_path))
    cited = set(re.findall(rf"FALSIFY-APR-PRETRAIN-{case.family}-\d+", messages))
    measured(
        faults=len(lint.lint_document(document, known)),
        mutants=len(_MUTATIONS),
        accepted=", ".join(accepted),
        mutants_accepted=len(accepted),
        ids_missing=len(numbered - tests),
        ids_cited=len(cited),
        unknown_cited=len(cited - tests),
    )


def _refusals(subject: Subject, configuration: Configuration, tmp_path: Path) -> list[str]:
    """What is said of an encoder, a file that is not there, another model's, and one in part."""
    from falsifiers.refusals import attempt
    from falsifiers.weight_files import random_weights, write_folder

    weights = random_weights(configuration, 0)
    whole = write_folder(tmp_path / "whole", configuration, weights)
    del weights["model.norm.weight"]
    part = write_folder(tmp_path / "part", configuration, weights)
    theta = configuration["rope_theta"] * 2
    asked = [
        ({**configuration, "architecture": "bert"}, whole),
        (configuration, tmp_path / "absent"),
        ({**configuration, "rope_theta": theta}, whole),
        (configuration, part),
    ]
    return [
        attempt(
            lambda config=config, path=path: subject.build_pretrain(  # type: ignore[misc]
                device="cpu", dtype="float32", seed=0, init_arch=config, init_path=path
            )
        ).message
        for config, path in asked
    ]


def _rename_measure(data: Any, test: Any) -> None:
    measures = test["measures"]
    measures["unheard_of"] = measures.pop(next(iter(measures)))


def _second_test_of_one_id(data: Any, test: Any) -> None:
    data["falsification_tests"].append(dict(test))


def _unmatched_counter_example(data: Any, test: Any) -> None:
    test["counter_examples"][0]["where"] = {"device": "abacus"}


def _claim_nothing_measured(data: Any, test: Any) -> None:
    test["claims"][0]["expr"] = "1 <= 2"


_MUTATIONS: dict[str, Any] = {
    "claims removed": lambda data, test: test.update(claims=[]),
    "a measure renamed": _rename_measure,
    "one counter-example left": lambda data, test: test.update(
        counter_examples=test["counter_examples"][:1]
    ),
    "an id given twice": _second_test_of_one_id,
    "a claim on nothing measured": _claim_nothing_measured,
    "a case on no device": lambda data, test: test["cases"][0]["matrix"].update(device=["abacus"]),
    "a counter-example without a case": _unmatched_counter_example,
    "an invariant undeclared": lambda data, test: test.update(invariants=["INV-NOWHERE-001"]),
    "an invariant untested": lambda data, test: data["invariants"].append(
        {"id": "INV-NOWHERE-001", "rule": "Nobody tests this one"}
    ),
    "a field unknown to the schema": lambda data, test: test.update(tolerence={}),
}
