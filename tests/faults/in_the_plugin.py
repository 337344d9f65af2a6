"""Faults of what runs the falsifiers and writes the run, and who notices each.

A fault is a module that pytest loads beside the plugin, in the controller and in every worker. What
notices it is a process without the fault: the reader, which refuses the run, or the verdict of the
rows that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

from aprverify.evidence import refusals
from aprverify.evidence.refusals import EvidenceRefused

HEAD = """\
from aprverify.contract import claims
from aprverify.evidence.writer import RunWriter
from aprverify.outcomes import NotRun
from aprverify.plugin import attempt, recorder, state
from aprverify.plugin.attempt import Attempt
from aprverify.plugin.recorder import Recorder
"""


@dataclass(frozen=True)
class Fault:
    """A fault, and what must become of it.

    `refusal` with `says` in its message: the run is no evidence. `code`: the run is read, and the
    exit status of its rows is this.
    """

    name: str
    source: str
    refusal: type[EvidenceRefused] | None = None
    says: str = ""
    code: int = 0


FAULTS = (
    Fault(
        "the footer is missing",
        "RunWriter.footer = lambda self, *_: self._file.close()",
        refusals.NoFooter,
        "no footer",
    ),
    Fault(
        "the footer counts what was planned instead of what came back",
        """
def footer(self, *args, _footer=RunWriter.footer):
    self._keys = range(self._planned + 1)
    _footer(self, *args)
RunWriter.footer = footer
""",
        refusals.CountMismatch,
        "the counts differ",
    ),
    Fault(
        "a row is lost on its way from a worker",
        """
def logreport(self, report, _take=Recorder.pytest_runtest_logreport):
    if "!one-more" not in report.nodeid:
        _take(self, report)
Recorder.pytest_runtest_logreport = logreport
""",
        code=4,
    ),
    Fault(
        "a row is lost and nobody accounts for it",
        """
def keep(self, row, environment, _keep=Recorder._keep):
    if row["defect"] != "one-more":
        _keep(self, row, environment)
Recorder._keep = keep
""",
        refusals.CountMismatch,
        "the counts differ",
    ),
    Fault(
        "a lost row is no longer planned either",
        """
def collected(self, nodeids, _collected=Recorder._collected):
    self._state.entries = [e for e in self._state.entries if e.defect != "one-more"]
    _collected(self, [n for n in nodeids if "!one-more" not in n])
def keep(self, row, environment, _keep=Recorder._keep):
    if row["defect"] != "one-more":
        _keep(self, row, environment)
Recorder._collected, Recorder._keep = collected, keep
""",
        refusals.CountMismatch,
        "no row of FALSIFY-TOY-001 under one-more",
    ),
    Fault(
        "a claim that compares NaN holds",
        """
def compare(op, observed, bound, _compare=claims.compare):
    return observed != observed or _compare(op, observed, bound)
claims.compare = compare
""",
        refusals.InconsistentRow,
        "non-finite value is said to hold",
    ),
    Fault(
        "a skipped item counts as held",
        """
def verdict(self, error, _verdict=Attempt._verdict):
    outcome, reason = _verdict(self, error)
    return ("held", None) if type(error).__name__ == "Skipped" else (outcome, reason)
Attempt._verdict = verdict
""",
        refusals.InconsistentRow,
        "held without a comparison",
    ),
    Fault(
        "what could not run counts as held",
        """
def verdict(self, error, _verdict=Attempt._verdict):
    return ("held", None) if isinstance(error, NotRun) else _verdict(self, error)
Attempt._verdict = verdict
""",
        refusals.InconsistentRow,
        "held without a comparison",
    ),
    Fault(
        "a falsifier that measures nothing is held",
        """
def verdict(self, error, _verdict=Attempt._verdict):
    return ("held", None) if error is None else _verdict(self, error)
Attempt._verdict = verdict
""",
        refusals.InconsistentRow,
        "held without a comparison",
    ),
    Fault(
        "a comparison that fails is overlooked",
        "Attempt.all_hold = property(lambda self: True)",
        refusals.InconsistentRow,
        "a comparison does not hold",
    ),
    Fault(
        "only the first claim is evaluated",
        """
def judge(*args, _judge=attempt.judge):
    yield next(iter(_judge(*args)))
attempt.judge = judge
""",
        refusals.InconsistentRow,
        "nothing was compared for|was not compared",
    ),
    Fault(
        "a claim is judged with twice the measured value",
        """
def judge(entry, configurations, measures, _judge=attempt.judge):
    return _judge(entry, configurations, {n: v * 2 for n, v in measures.items()})
attempt.judge = judge
""",
        refusals.InconsistentRow,
        "what the row measured makes",
    ),
    Fault(
        "a survivor is called caught",
        """
def conclude(self, error, _conclude=Attempt._conclude_teeth):
    _conclude(self, error)
    self.outcome = "caught" if self.outcome == "survived" else self.outcome
Attempt._conclude_teeth = conclude
""",
        refusals.InconsistentRow,
        "every comparison holds",
    ),
    Fault(
        "a defect that was not in force counts as a survivor",
        'Attempt._not_in_force = lambda self: ""',
        refusals.InconsistentRow,
        "never reached",
    ),
    Fault(
        "the canary is never measured",
        """
def row(self, *args, _row=Attempt.row):
    self.canary = "not_measured"
    return _row(self, *args)
Attempt.row = row
""",
        refusals.InconsistentRow,
        "was not measured",
    ),
    Fault(
        "no defect is planted although teeth were asked for",
        """
def plan(contracts, *, teeth, lane="all", _plan=state.make_plan):
    return _plan(contracts, teeth="none", lane=lane)
state.make_plan = plan
""",
        refusals.CountMismatch,
        "under one-more",
    ),
    Fault(
        "only the first case of a test is run",
        """
def plan(contracts, *, teeth, lane="all", _plan=state.make_plan):
    entries = _plan(contracts, teeth=teeth, lane=lane)
    return [entry for entry in entries if entry.case == entry.test.cases[0]]
state.make_plan = plan
""",
        refusals.CountMismatch,
        "no row of FALSIFY-TOY-001.two",
    ),
    Fault(
        "rows name the clean entry's key for its teeth",
        """
def row(self, *args, _row=Attempt.row):
    return {**_row(self, *args), "key": f"{self.entry.test.id}[{self.entry.case.id}]"}
Attempt.row = row
""",
        EvidenceRefused,  # of two rows with one key the first to arrive is kept: which differs
        "evidence is never repaired",
    ),
    Fault(
        "two rows of one entry, the better one last",
        """
def keep(self, row, environment, _keep=Recorder._keep):
    _keep(self, row, environment)
    if row["defect"] == "one-more" and self._writer is not None:
        self._writer._keys.discard(row["key"])
        self._writer.row(row)
Recorder._keep = keep
""",
        refusals.DuplicateKey,
        "a second row",
    ),
    Fault(
        "the chain is not kept",
        """
def line(self, kind, body, _line=RunWriter._line):
    self._previous = ""
    _line(self, kind, body)
RunWriter._line = line
""",
        refusals.BrokenChain,
        "prev is not the hash",
    ),
    Fault(
        "a line is written when it is already too late for it",
        """
def footer(self, *args, _footer=RunWriter.footer):
    lines = self._path.read_bytes().splitlines(True)
    self._file.seek(0); self._file.truncate()
    self._file.write(b"".join(lines[:1] + lines[2:] + lines[1:2]))
    _footer(self, *args)
RunWriter.footer = footer
""",
        refusals.BrokenChain,
        "seq is",
    ),
    Fault(
        "the contract in the run is not the one that was run",
        """
def describe(contract, root, _describe=recorder.describe_contract):
    body = _describe(contract, root)
    for test in body["tests"]:
        test["claims"] = [{**claim, "expr": "x <= 4"} for claim in test["claims"]]
    return body
recorder.describe_contract = describe
""",
        refusals.InconsistentRow,
        "is not what the contract claims|was not compared",
    ),
)
