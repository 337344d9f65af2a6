"""Selection: ids exactly, globs, pairs and pytest's own words, alone and under workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..conftest import Toy, build_toy, contract, falsification

_FALSIFIERS = """
def falsify_sum(subject, case, measured):
    measured(x=subject.total([1, 2]))

def falsify_more(subject, case, measured):
    measured(x=3)
"""


def _suite(root: Path) -> Toy:
    """Tests 007 and 0071 of invariants 007 and 0071, on two dtypes and with a flag."""
    toy = build_toy(root)
    toy.write({"toysuite/falsify_toy.py": _FALSIFIERS})
    cases = [
        {"scale": "full", "matrix": {"device": ["cpu"], "dtype": ["float32"], "flag": [True]}},
        {"scale": "reduced", "matrix": {"device": ["cuda"], "dtype": ["bfloat16"]}},
    ]
    numbers = {"007": "falsify_toy.falsify_sum", "0071": "falsify_toy.falsify_more"}
    invariants = [{"id": f"INV-TOY-{n}", "rule": "sums add up"} for n in numbers]
    gate = {"rule": "sums add up", "binds": ["INV-TOY-007"], "ship_blocking": True}
    tests = [
        falsification(f"FALSIFY-TOY-{n}.part", f, invariants=[f"INV-TOY-{n}"], cases=cases)
        for n, f in numbers.items()
    ]
    gates = [{"id": "GATE-TOY-001", **gate}]
    toy.contract(contract(invariants=invariants, gates=gates, falsification_tests=tests))
    return toy


_PROBE = """
import json, sys, pytest
class Watch:
    def pytest_collection_finish(self, session):
        self.found = [item.nodeid for item in session.items]
answers = []
for arguments in json.loads(sys.argv[1]):
    watch = Watch()
    code = pytest.main(["--collect-only", "-qq", *arguments], plugins=[watch])
    answers.append([int(code), getattr(watch, "found", [])])
print()
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The suite that all selections are made from."""
    return _suite(tmp_path_factory.mktemp("selection") / "project")


@pytest.fixture(scope="module")
def selections(suite: Toy) -> list[tuple[int, list[str]]]:
    """Exit status and node ids for each of `_SELECTIONS`, all from one process."""
    suite.write({"probe.py": _PROBE})
    done = suite.process("probe.py", json.dumps([arguments for arguments, _ in _SELECTIONS]))
    answers: list[tuple[int, list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def _short(nodeid: str) -> str:
    """Number and device of an item, and the defect where there is one."""
    entry = nodeid.partition("TOY-")[2].rstrip("]")
    point, _, defect = entry.partition("!")
    number, _, device = point.partition(",")[0].partition(".part-device=")
    return f"{number} {device}" + (f" !{defect}" if defect else "")


_ALL = ["007 cpu", "007 cuda", "0071 cpu", "0071 cuda"]


_SELECTIONS: list[tuple[list[str], list[str]]] = [
    ([], _ALL),
    (["-k", "INV-TOY-007"], _ALL[:2]),
    (["-k", "inv-toy-007"], _ALL[:2]),
    (["-k", "GATE-TOY-001"], _ALL[:2]),
    (["-k", "FALSIFY-TOY-007"], _ALL[:2]),
    (["-k", "FALSIFY-TOY-0071.part"], _ALL[2:]),
    (["-k", "C-TOY"], _ALL),
    (["-k", "falsify_sum"], _ALL[:2]),
    (["-k", "falsify_*"], _ALL),
    (["-k", "FALSIFY_S*"], _ALL[:2]),
    (["-k", "falsify_toy*"], _ALL),
    (["-k", "INV-TOY-00?"], _ALL[:2]),
    (["-k", "*-0071"], _ALL[2:]),
    (["-k", "nothing_*"], []),
    (["-k", "INV-TOY-007 and device:cpu"], _ALL[:1]),
    (["-k", "not INV-TOY-007 and not (device:cuda)"], _ALL[2:3]),
    (["-k", "(INV-TOY-0071 or GATE-TOY-001) and dtype:bfloat16"], [_ALL[1], _ALL[3]]),
    (["-k", "flag:true"], [_ALL[0], _ALL[2]]),
    (["-k", "scale:reduced"], [_ALL[1], _ALL[3]]),
    (["-k", "float32"], [_ALL[0], _ALL[2]]),
    (["-k", "sum"], _ALL[:2]),
    (["-k", "no_such_word"], []),
    (["-k", "INV-TOY-007", "--lane", "cpu"], _ALL[:1]),
    (["-k", "dtype:bfloat16", "--lane", "cpu"], []),
    (["-k", "defect:one-more"], []),
    (
        ["-k", "defect:one-more", "--teeth", "declared", "--lane", "cuda"],
        ["007 cuda !one-more", "0071 cuda !one-more"],
    ),
    (["--lane", "cpu"], [_ALL[0], _ALL[2]]),
    (["--lane", "cuda"], [_ALL[1], _ALL[3]]),
    (["-m", 'binds(inv="INV-TOY-007") and not case(device="cpu")'], _ALL[1:2]),
    (["-m", 'falsify(id="FALSIFY-TOY-0071.part")'], _ALL[2:]),
    (["-m", "case(flag=True)"], [_ALL[0], _ALL[2]]),
]


@pytest.mark.parametrize(
    "number", range(len(_SELECTIONS)), ids=[" ".join(a) or "all" for a, _ in _SELECTIONS]
)
def test_what_is_asked_for_is_what_is_selected(
    selections: list[tuple[int, list[str]]], number: int
) -> None:
    """An id selects its own entries and no others, also inside an expression."""
    expected = _SELECTIONS[number][1]
    status, found = selections[number]
    assert sorted(map(_short, found)) == expected
    assert status == (0 if expected else 5)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-k", "INV-TOY-007 and device:cpu"],
        ["-k", "falsify_s* and not device:cuda"],
        ["-m", 'binds(inv="INV-TOY-007") and not case(device="cuda")'],
    ],
    ids=["id", "glob", "marker"],
)
def test_workers_select_the_same(tmp_path: Path, arguments: list[str]) -> None:
    """Each worker rewrites the expression as it was typed."""
    done, run = _suite(tmp_path / "project").record("-n2", *arguments)
    assert [row.key for row in run.rows] == [
        "FALSIFY-TOY-007.part[device=cpu,dtype=float32,flag=true]"
    ]
    assert done.returncode == 0
    assert run.header.selection.keyword == (arguments[1] if arguments[0] == "-k" else "")
    assert not run.header.selection.complete


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("INV-TOY-070", "no contract declares INV-TOY-070; did you mean INV-TOY-007"),
        ("F-QQQQQQQQQ", "no contract declares F-QQQQQQQQQ; see `aprverify list`"),
        ("device:gpu", "no case has device:gpu"),
        ("defect:one-mor", "no case has defect:one-mor; did you mean defect:one-more"),
    ],
)
def test_an_unknown_id_is_a_usage_error_with_a_suggestion(
    suite: Toy, word: str, words: str
) -> None:
    """Selecting nothing by a slip would look like having tested it."""
    done = suite.pytest("-k", f"not ({word})")
    assert done.returncode == 4
    assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "aprverify_suite=nowhere"], "no suite 'nowhere' is installed"),
        (["--subject", "nobody"], "no subject 'nobody': use one of toy, other"),
        (["--asset", "absent"], "--asset absent: give NAME=FILE"),
        (["--asset", "nothing=pytest.ini"], "no asset 'nothing'; there are: absent"),
    ],
)
def test_a_slip_on_the_command_line_is_a_usage_error(
    suite: Toy, arguments: list[str], words: str
) -> None:
    """One line, no traceback."""
    done = suite.pytest(*arguments)
    assert done.returncode == 4
    assert words in done.stderr and "Traceback" not in done.stderr


def test_without_a_suite_the_plugin_does_nothing(toy: Toy) -> None:
    """Other projects of the same environment keep pytest as it is."""
    toy.write({"pytest.ini": "[pytest]\n", "test_plain.py": "def test_a(): pass\n"})
    done = toy.pytest("-k", "INV-TOY-999 or test_a", "test_plain.py")
    assert done.returncode == 0 and "aprverify:" not in done.stdout


def test_plain_tests_beside_the_suite_are_left_alone(toy: Toy) -> None:
    """Neither a glob nor a name that begins with falsify_ makes an entry of them."""
    toy.write({"other/test_plain.py": "def test_a(): pass\ndef falsify_b(): pass\n"})
    done = toy.pytest("other", "-q")
    assert done.returncode == 0 and "2 passed" in done.stdout
    assert "1 passed" in toy.pytest("other", "-q", "-k", "test_*").stdout
