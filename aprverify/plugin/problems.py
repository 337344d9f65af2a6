"""A problem of a contract, as a pytest item that fails and says where it stands."""

from __future__ import annotations

from typing import Any

import pytest

from aprverify.contract.lint import Problem


class ContractProblem(Exception):
    """Raised by the item of a problem."""


class ProblemItem(pytest.Item):
    """Fails always."""

    def __init__(self, *, problem: Problem, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._problem = problem

    def runtest(self) -> None:
        """Fail."""
        raise ContractProblem(str(self._problem))

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        """Only the message: a traceback would show this file."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Any, int, str]:
        """Where the problem stands."""
        return self._problem.path, self._problem.line - 1, self.name
