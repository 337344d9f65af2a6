"""The linter: every kind of problem has a file, a line, what is wrong and how to mend it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from aprverify.contract.lint import Problem, load_suite
from falsifiers.suite import SUITE

from ..conftest import Toy, build_toy, contract, falsification, forget_toy

Body = dict[str, Any]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    """One toy suite, whose contract each test rewrites; its package can be imported."""
    toy = build_toy(tmp_path_factory.mktemp("lint") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(toy.root))
        forget_toy()
        yield toy
    forget_toy()


def problems(toy: Toy, body: Body) -> list[Problem]:
    """What the linter says of the toy suite with this contract."""
    toy.contract(body)
    return load_suite(toy.suite).problems


def _test(**changes: Any) -> Body:
    test = falsification("FALSIFY-TOY-001", "falsify_toy.falsify_sum", **changes)
    return contract(falsification_tests=[{**test, "invariants": ["INV-TOY-001"]}])


def _claim(expr: str, **changes: Any) -> Body:
    return _test(claims=[{"id": "sum", "expr": expr, "why": "one and two"}], **changes)


def _cases(*specs: Body) -> list[Body]:
    return [{"scale": "full", **spec} for spec in specs]


def _matrix(**matrix: list[Any]) -> list[Body]:
    return _cases({"matrix": {"device": ["cpu"], **matrix}})


_MEASURE = {"unit": "1", "means": "the sum of the values"}
_TEXT = {"type": "text", "means": "what was printed"}
_TOLERANCE = {"float32": 0.5, "why": "measured on a Monday"}
_TWICE = [{"id": "INV-TOY-001", "rule": "sums add up"}] * 2
_GATE = contract()["gates"][0]

_PROBLEMS: dict[str, tuple[Body, str, str]] = {
    "unknown field": ({**contract(), "titel": "Sums"}, "'titel' was unexpected",
        "did you mean 'title'?"),
    "unknown field of a test": (_test(claim="x"), "'claim' was unexpected",
        "did you mean 'claims'?"),
    "missing field": (contract(motivation=None), "'motivation' is a required property",
        "add the field"),
    "wrong id": (contract("TOY"), "'TOY' does not match", "schema"),
    "name of a measure": (_test(measures={"X": _MEASURE}), "'X' does not match", "lower_case"),
    "unknown name": (_claim("xx == 3"), "nothing is called 'xx'", "did you mean 'x'?"),
    "no measure": (_claim("1 < 2 and x == 3"), "`1 < 2` compares nothing that was measured",
        "measure"),
    "grammar": (_claim("x == 3 or x == 4"), "column 8", "claims.py"),
    "number against text": (_claim("x == 'a'"), "a number against a text", "like with like"),
    "order of texts": (_claim("x < 'a'", measures={"x": _TEXT}), "a text has no order",
        "like with like"),
    "contains in a number": (_claim("x contains 'a'"), "contains needs a text", "like with like"),
    "member of another type": (_claim("x in [1, 'a']"), "a number is never 'a'", "like with like"),
    "arithmetic on a text": (_claim("x + 1 < 2", measures={"x": _TEXT}), "arithmetic on a text",
        "like"),
    "unused measure": (
        _test(measures={"x": _MEASURE, "y": _MEASURE}), "no claim uses y", "`reported: true`"),
    "measure without unit": (_test(measures={"x": {"means": "the sum, again"}}), "has no unit",
        "unit"),
    "tolerance of a dtype": (
        _claim("x <= t", tolerances={"t": _TOLERANCE}, cases=_matrix(dtype=["float32",
         "bfloat16"])),
        "tolerance t has no value for bfloat16", "add it, measured"),
    "tolerance without dtype": (
        _claim("x <= t", tolerances={"t": _TOLERANCE}), "no value for no dtype", "add it"),
    "infinite tolerance": (
        _claim("x <= t", tolerances={"t": {"float32": float("inf"), "why": "it is large"}},
               cases=_matrix(dtype=["float32"])), "tolerance t is not finite", "measure it"),
    "infinite constant": (
        contract(constants={"c": {"value": float("nan"), "why": "who knows"}}),
        "constant c is not finite", "no claim could hold"),
    "measure named as a constant": (
        contract(constants={"x": {"value": 1, "why": "just a one"}}),
        "x is a constant and also a measure", "rename one"),
    "measure named as a parameter": (
        _test(cases=_matrix(x=[1])), "x is a case parameter and also a measure", "rename one"),
    "measure named as a parameter of some cases": (
        _test(cases=[*_matrix(x=[1]), *_matrix(seed=[0])]),
        "x is a case parameter and also a measure", "rename one"),
    "measure named as a field": (
        _claim("vocab_size == 3", measures={"vocab_size": _MEASURE}, cases=_matrix(arch=["tiny"])),
        "vocab_size is a configuration field and also a measure", "rename one"),
    "measure named as a word": (
        _test(measures={"x": _MEASURE, "min": {**_MEASURE, "reported": True}}),
        "min is a measure and also a keyword", "rename one"),
    "field that one architecture lacks": (
        _claim("x <= extra", cases=_matrix(arch=["tiny", "wide"])), "nothing is called 'extra'",
         "known"),
    "parameter of two kinds": (
        _claim("x <= n", cases=_matrix(n=[1, "a"])), "nothing is called 'n'", "known"),
    "unknown architecture": (
        _test(cases=_matrix(arch=["huge"])), "no configuration 'huge'", "known: tiny, wide"),
    "unknown device": (
        _test(cases=_cases({"matrix": {"device": ["tpu"]}})), "device 'tpu'", "cpu, cuda"),
    "seed of a campaign": (
        _test(cases=_matrix(seed=[2**20])), "seed 1048576", "from 0 to 1048575"),
    "chance without alpha": (
        contract(
            constants={"three": {"value": 3, "why": "a false alarm once in 10^9"}},
            falsification_tests=[falsification(
                "FALSIFY-TOY-001", "falsify_toy.falsify_sum", invariants=["INV-TOY-001"],
                claims=[{"id": "sum", "expr": "x == three", "why": "one and two"}])]),
        "claim sum: three is a matter of chance", "add `alpha:`"),
    "alpha that is no small number": (
        _test(claims=[{"id": "sum", "expr": "x == 3", "alpha": 0.05, "why": "one and two"}]),
        "0.05 is greater than the maximum", "schema"),
    "empty matrix": (_test(cases=_matrix(seed=[])), "[] should be non-empty", "schema"),
    "no case": (_test(cases=[]), "[] should be non-empty", "schema"),
    "case twice": (_test(cases=_matrix(seed=[0]) * 2), "case device=cpu,seed=0 stands twice",
        "drop one"),
    "no case matches": (
        _test(counter_examples=[{"defect": "one-more",
         "where": {"seed": 7}}, {"defect": "one-less"}]),
        "no case matches {'seed': 7} of one-more", "that the matrix holds"),
    "defect twice": (
        _test(counter_examples=[{"defect": "one-more"}] * 2), "one-more is declared twice",
         "drop one"),
    "unknown defect": (
        _test(counter_examples=[{"defect": "one-mor"}, {"defect": "one-less"}]),
        "no defect is called 'one-mor'", "did you mean 'one-more'?"),
    "unknown asset": (
        _test(cases=_cases({"matrix": {"device": ["cpu"]}, "requires": ["asset:absen"]})),
        "requires asset:absen, which assets.yaml lacks", "did you mean 'asset:absent'?"),
    "several GPUs on the CPU": (
        _test(cases=_cases({"matrix": {"device": ["cpu"]}, "requires": ["gpus:2"]})),
        "a case on cpu requires gpus:2", "give it `device: [cuda]`"),
    "several GPUs in two ways": (
        _test(cases=_cases({"matrix": {"device": ["cuda"]}, "requires": ["gpus:2", "gpus:4"]})),
        "one case requires gpus:2 and gpus:4", "keep the largest"),
    "no GPU as a need": (
        _test(cases=_cases({"matrix": {"device": ["cuda"]}, "requires": ["gpus:0"]})),
        "'gpus:0' does not match", "schema"),
    "missing file": (
        _test(cases=_cases({"matrix": {"device": ["cpu"]}, "requires": ["file:toysuite/no.txt"]})),
        "requires the file toysuite/no.txt, which does not exist", "name a file of the suite"),
    "missing falsifier": (
        contract(falsification_tests=[
            falsification("FALSIFY-TOY-001", "falsify_toy.falsify_sum", invariants=["INV-TOY-001"]),
            falsification("FALSIFY-TOY-002", "falsify_toy.falsify_no")]),
        "there is no falsify_toy.falsify_no",
         "write falsify_no(subject, case, measured) in falsify_toy.py"),
    "invariant twice": (contract(invariants=_TWICE), "INV-TOY-001 stands twice (first on line",
        "own id"),
    "unknown invariant": (
        contract(falsification_tests=[falsification(
            "FALSIFY-TOY-001", "falsify_toy.falsify_sum", invariants=["INV-TOY-001",
             "INV-TOY-009"])]),
        "FALSIFY-TOY-001 names INV-TOY-009, which is not here", "declare it"),
    "invariant without a test": (
        contract(falsification_tests=[falsification("FALSIFY-TOY-001", "falsify_toy.falsify_sum")]),
        "no test names INV-TOY-001", "add `invariants: [INV-TOY-001]`"),
    "gate that binds nothing": (
        contract(gates=[{**_GATE, "binds": []}]), "[] should be non-empty", "schema"),
    "gate that binds a stranger": (
        contract(gates=[{**_GATE, "binds": ["INV-TOY-001", "INV-TOY-009"]}]),
        "GATE-TOY-001 binds INV-TOY-009, which is not here", "declare it"),
    "claim twice": (
        _test(claims=[{"id": "sum", "expr": "x == 3", "why": "one and two"}] * 2),
        "claim sum stands twice", "rename one"),
}  # fmt: skip


@pytest.mark.parametrize("name", _PROBLEMS)
def test_each_kind_of_problem_is_found_once(shared: Toy, name: str) -> None:
    """File and line of the contract, what is wrong and how to mend it."""
    body, what, fix = _PROBLEMS[name]
    found = [p for p in problems(shared, body) if what in p.what]
    assert len(found) == 1, problems(shared, body)
    assert fix in found[0].fix
    assert found[0].path == shared.root / "contracts/toy.yaml"
    assert 1 <= found[0].line <= len(found[0].path.read_text().splitlines())


def test_a_problem_points_at_the_line_that_has_it(shared: Toy) -> None:
    """The line of the claim's expression, not that of the test or of the file."""
    body = _claim("xx == 3", measures={"x": {**_MEASURE, "reported": True}})
    (found,) = problems(shared, body)
    line = found.path.read_text().splitlines()[found.line - 1]
    assert line.strip() == "expr: xx == 3"
    assert str(found).startswith(f"{found.path}:{found.line}: FALSIFY-TOY-001, claim sum: ")


def test_a_sound_suite_has_no_problem(shared: Toy) -> None:
    """Neither the toy one nor the bundled one."""
    assert problems(shared, contract()) == []
    assert load_suite(SUITE).problems == []


def test_a_contract_with_a_problem_is_not_run(shared: Toy) -> None:
    """It leaves the contracts that are sound as they are."""
    shared.contract(_claim("xx == 3"))
    assert load_suite(shared.suite).contracts == []


@pytest.mark.parametrize(
    ("files", "path", "line", "what"),
    [
        ({"contracts/two.yaml": "- a\n"}, "contracts/two.yaml", 1, "a contract is a mapping"),
        ({"contracts/two.yaml": "id: a\nid: b\n"}, "contracts/two.yaml", 2, "'id' stands twice"),
        ({"toysuite/falsify_two.py": "x = 1\nx = (\n"}, "toysuite/falsify_two.py", 2, "not Python"),
        ({"toysuite/falsify_two.py": "\0"}, "toysuite/falsify_two.py", 1, "not Python"),
        (
            {"toysuite/falsify_two.py": "\ndef falsify_more(subject, case, measured): ...\n"},
            "toysuite/falsify_two.py", 2, "falsify_two.falsify_more has no claim",
        ),
        (
            {"toysuite/falsify_toy.py": "def falsify_sum(subject, case): ...\n"},
            "toysuite/falsify_toy.py", 1, "falsify_toy.falsify_sum measures nothing",
        ),
        ({"toysuite/defects/bad.py": "import nowhere_at_all\n"}, "toysuite/defects", 1,
         "nowhere_at_all"),
        ({"toysuite/assets.yaml": "assets: 3\n"}, "toysuite/assets.yaml", 1,
         "needs a mapping `assets`"),
        ({"contracts/configurations.yaml": "a: 1\n"}, "contracts/configurations.yaml", 1,
         "no `configurations`"),
        (
            {"contracts/configurations.yaml": "configurations:\n  tiny: {a: null}\n"},
            "contracts/configurations.yaml", 2, "configuration tiny is no mapping",
        ),
    ],
)  # fmt: skip
def test_problems_of_other_files_are_told_too(
    importable: Toy,
    files: dict[str, str],
    path: str,
    line: int,
    what: str,
) -> None:
    """Falsifiers, defects, configurations and the registry of assets; each at its own place."""
    importable.write(files)
    found = [p for p in load_suite(importable.suite).problems if what in p.what]
    assert [(p.path, p.line) for p in found] == [(importable.root / path, line)]
    assert found[0].fix


def test_an_id_belongs_to_one_contract(shared: Toy) -> None:
    """The second contract is blamed at the line of each id, and is not run."""
    shared.contract(contract())
    shared.contract(contract("C-TOY-2", gates=[]), "two.yaml")
    loaded = load_suite(shared.suite)
    (shared.root / "contracts/two.yaml").unlink()
    assert [p.what for p in loaded.problems] == [
        "INV-TOY-001 stands also in toy.yaml",
        "FALSIFY-TOY-001 stands also in toy.yaml",
    ]
    lines = [p.line for p in loaded.problems]
    assert lines == sorted(lines) and lines[0] > 1
    assert [c.id for c in loaded.contracts] == ["C-TOY"]


def test_while_a_contract_cannot_be_read_no_falsifier_is_blamed(shared: Toy) -> None:
    """Its falsifiers would be called unbound without reason."""
    found = problems(shared, {**contract(), "titel": "Sums"})
    assert len(found) == 1


def test_an_empty_folder_is_a_problem(toy: Toy) -> None:
    """Nothing claimed is nothing verified."""
    (toy.root / "contracts/toy.yaml").unlink()
    assert load_suite(toy.suite).problems[0].what == "no contract in this folder"


def test_lint_is_quick(importable: Toy) -> None:
    """A thousand contracts take less than five seconds, so a hundred less than a tenth of that.

    The bound here is five times as wide, since tests share the machine.
    """
    for number in range(100):
        body = contract(
            f"C-N-{number}", invariants=[], gates=[],
            falsification_tests=[falsification(f"FALSIFY-N-{number}", "falsify_toy.falsify_sum")],
        )  # fmt: skip
        importable.contract(body, f"n{number}.yaml")
    started = time.perf_counter()
    loaded = load_suite(importable.suite)
    seconds = time.perf_counter() - started
    assert len(loaded.contracts) == 101
    assert seconds < 2.5


def _lint(toy: Toy, *arguments: str) -> tuple[int, str, str]:
    done = toy.process("-m", "aprverify", "--suite", "toy", *arguments)
    return done.returncode, done.stdout, done.stderr


def test_the_command_prints_every_problem_and_fails(toy: Toy) -> None:
    """Exit 1 with problems, 0 without; a single file can be named."""
    assert _lint(toy, "lint") == (0, "1 contracts: no problem\n", "")
    toy.contract({**contract(), "titel": "Sums"})
    code, said, _ = _lint(toy, "lint")
    assert code == 1 and "fix: did you mean 'title'?" in said and said.endswith("1 problems\n")
    assert _lint(toy, "lint", "contracts/toy.yaml")[0] == 1
    code, said, _ = _lint(toy, "lint", "nowhere.yaml")
    assert code == 1 and "cannot be read: No such file" in said


def test_list_shows_by_id_and_says_when_something_is_missing(toy: Toy) -> None:
    """An unknown id is answered with the nearest; a problem is never a silent gap."""
    code, said, _ = _lint(toy, "list")
    assert code == 0 and "FALSIFY-TOY-001" in said
    for identity in ("C-TOY", "INV-TOY-001", "GATE-TOY-001", "FALSIFY-TOY-001"):
        code, said, _ = _lint(toy, "list", identity)
        assert code == 0 and "claim           sum: x == 3" in said
    code, _, complaint = _lint(toy, "list", "INV-TOY-002")
    assert code == 2 and "did you mean INV-TOY-001" in complaint
    toy.contract({**contract(), "titel": "Sums"})
    code, said, complaint = _lint(toy, "list")
    assert code == 0 and said == "" and "1 problems" in complaint and "aprverify lint" in complaint


def test_commands_need_no_torch(toy: Toy) -> None:
    """They run where nothing but the core is installed."""
    script = (
        "import sys; from aprverify.cli import main; main(['--suite', 'bundled', 'lint']);"
        "main(['--suite', 'bundled', 'list']); sys.exit('torch' in sys.modules)"
    )
    assert toy.process("-c", script).returncode == 0
