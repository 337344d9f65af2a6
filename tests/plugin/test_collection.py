"""Collection: quick, without torch, and no contract that is wrong goes unnoticed."""

from __future__ import annotations

import json

import pytest

from falsifiers.suite import SUITE

from ..conftest import HELD, Toy, contract, falsification

_PROBE = """
import sys, time, json, pytest
class Watch:
    def pytest_collection_finish(self, session):
        self.found = len(session.items)
watch = Watch()
started = time.process_time()
code = pytest.main(["--collect-only", "-qq", "--teeth", "declared", FOLDER], plugins=[watch])
heavy = sorted({"torch", "trainer", "transformers"} & set(sys.modules))
print()
print(json.dumps([int(code), watch.found, heavy, time.process_time() - started]))
"""


def test_the_bundled_suite_is_collected_quickly_and_without_torch(toy: Toy) -> None:
    """Each worker of each lane collects. Processor time, since tests share the cores: under a
    second on an idle machine, and twice that on a busy one with cold caches."""
    toy.write({"probe.py": _PROBE.replace("FOLDER", repr(str(SUITE.falsifiers_dir)))})
    best = 9.0
    for _ in range(2):
        done = toy.process("probe.py")
        code, found, heavy, seconds = json.loads(done.stdout.splitlines()[-1])
        assert (code, heavy) == (0, []), done.stdout
        assert found > 300
        best = min(best, seconds)
    assert best < 2.0


@pytest.mark.parametrize("heavy", ["import torch.nn", "from toytrainer import core"])
@pytest.mark.parametrize("place", ["falsify_toy.py", "helper.py", "defects/faults.py"])
def test_a_heavy_import_at_module_level_is_refused_naming_the_line(
    toy: Toy, heavy: str, place: str
) -> None:
    """Directly, through a helper of the suite, or in a module of defects; torch stays unloaded."""
    path = toy.root / "toysuite" / place
    before = path.read_text() if path.exists() else ""
    toy.write({f"toysuite/{place}": f"{before}\n{heavy}\n"})
    if place == "helper.py":
        toy.write({"toysuite/falsify_toy.py": f"import toysuite.helper\n{HELD}"})
    done = toy.pytest()
    line = len(before.splitlines()) + 2
    assert done.returncode != 0
    assert f"{path}:{line}: imports {heavy.split()[1].partition('.')[0]} while" in done.stdout


def test_a_heavy_import_inside_a_falsifier_is_fine(toy: Toy) -> None:
    """Only collection is watched."""
    toy.write(
        {
            "toysuite/falsify_toy.py": HELD.replace(
                "    measured", "    import toytrainer.core\n    measured"
            )
        }
    )
    assert toy.pytest().returncode == 0


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "two workers"])
def test_a_malformed_contract_is_a_red_item_that_no_selection_hides(
    toy: Toy, workers: tuple[str, ...]
) -> None:
    """Sound contracts still run beside it; two problems of one line are two items."""
    toy.contract(contract("C-BAD", title=None, motivation=None), "bad.yaml")
    toy.write({"contracts/worse.yaml": "id: [\n"})
    done = toy.pytest("-k", "INV-TOY-001", "-m", "falsify", "-v", *workers)
    assert done.returncode == 1
    assert "3 failed, 1 passed" in done.stdout
    for field in ("title", "motivation"):
        assert f"bad.yaml:1: contract: '{field}' is a required property" in done.stdout
    assert "bad.yaml:1#2 " in done.stdout
    assert "worse.yaml" in done.stdout


def test_an_id_of_a_contract_that_cannot_be_read_shows_the_problem(toy: Toy) -> None:
    """Not a usage error, which would hide why the id is unknown."""
    toy.contract({**contract("C-BAD"), "titel": "Sums"}, "bad.yaml")
    done = toy.pytest("-k", "C-BAD")
    assert done.returncode == 1 and "'titel' was unexpected" in done.stdout


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"toysuite/falsify_two.py": "def falsify_b(measured): ...\n"},
            "falsify_two.falsify_b has no claim",
        ),
        ({"toysuite/falsify_toy.py": "\n"}, "there is no falsify_toy.falsify_sum"),
    ],
    ids=["falsifier without claim", "claim without falsifier"],
)
def test_what_is_bound_in_one_direction_only_is_red(
    toy: Toy, files: dict[str, str], words: str
) -> None:
    """A falsifier without a claim and a claim without a falsifier both fail."""
    toy.write(files)
    done = toy.pytest()
    assert done.returncode == 1 and words in done.stdout


def test_an_unknown_defect_breaks_its_own_teeth_only(toy: Toy) -> None:
    """It is a red item, its entry is broken, and the rest runs."""
    examples = [{"defect": "one-mor"}, {"defect": "one-less"}]
    test = falsification("FALSIFY-TOY-001", "falsify_toy.falsify_sum", counter_examples=examples)
    toy.contract(contract(falsification_tests=[test], invariants=[], gates=[]))
    done, run = toy.record("--teeth", "declared")
    assert {row.defect: row.outcome for row in run.rows} == {
        None: "held", "one-mor": "broken", "one-less": "caught",
    }  # fmt: skip
    assert done.returncode == 1 and "no defect is called 'one-mor'" in done.stdout


def test_collection_names_items_by_id_and_case_in_a_stable_order(toy: Toy) -> None:
    """Characters that pytest or a shell would trip over are escaped."""
    specs = ["a b", "[x]", "é", "c:1", ""]
    cases = [{"scale": "full", "matrix": {"device": ["cpu"], "spec": specs, "on": [True]}}]
    test = falsification("FALSIFY-TOY-001", "falsify_toy.falsify_sum", cases=cases)
    toy.contract(contract(falsification_tests=[test], invariants=[], gates=[]))
    listed = toy.pytest("--collect-only", "-q").stdout.splitlines()
    assert [x.partition("spec=")[2] for x in listed if "spec=" in x] == [
        f"{spelled},on=true]" for spelled in ("a%20b", "%5bx%5d", "%e9", "c:1", "")
    ]


_GROUPS = """
import json, pytest
class Watch:
    def pytest_collection_finish(self, session):
        self.found = {}
        for item in session.items:
            mark = item.get_closest_marker("xdist_group")
            name = item.name.partition("[")[2].rstrip("]").removeprefix("FALSIFY-TOY-")
            self.found[name] = mark and mark.args[0]
watch = Watch()
pytest.main(["--collect-only", "-qq", "--teeth", "declared"], plugins=[watch])
print()
print(json.dumps(watch.found))
"""


def test_what_is_made_once_is_asked_for_by_one_worker(toy: Toy) -> None:
    """Another one would only wait for it; a source defect has everything made anew."""
    matrices: dict[str, dict[str, list[object]]] = {
        "1": {"run": ["a"], "n": [1]},
        "2": {"run": ["a"]},
        "3": {"n": [1, 2]},
    }
    tests = [
        falsification(f"FALSIFY-TOY-{n}", "falsify_toy.falsify_sum", invariants=["INV-TOY-001"],
            cases=[{"scale": "full", "matrix": {"device": ["cpu"], **matrix}}])
        for n, matrix in matrices.items()
    ]  # fmt: skip
    toy.contract(contract(falsification_tests=tests))
    toy.write({"probe.py": _GROUPS})
    done = toy.process("probe.py")
    run = "device=cpu,run=a"
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "1-device=cpu,run=a,n=1": run, "1-device=cpu,run=a,n=1!one-more": run,
        "1-device=cpu,run=a,n=1!one-less": None,
        "2-device=cpu,run=a": run, "2-device=cpu,run=a!one-more": run,
        "2-device=cpu,run=a!one-less": None,
        "3-device=cpu,n=1": "FALSIFY-TOY-3,device=cpu,n=1",
        "3-device=cpu,n=1!one-more": "FALSIFY-TOY-3,device=cpu,n=1",
        "3-device=cpu,n=1!one-less": None,
        "3-device=cpu,n=2": "FALSIFY-TOY-3,device=cpu,n=2",
    }, done.stdout  # fmt: skip
