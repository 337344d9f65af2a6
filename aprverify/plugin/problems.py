"""A problem of a contract, as a pytest item that fails and says where it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from aprverify.contract.lint import Problem


def problem_items(
    session: pytest.Session, problems: Iterable[Problem], root: Path
) -> list[pytest.Item]:
    """An item for each problem, named by its place below `root`."""
    items: list[pytest.Item] = []
    seen: Counter[str] = Counter()
    for problem in problems:
        path = problem.path
        inside = path.is_relative_to(root)
        name = f"{path.relative_to(root).as_posix() if inside else path}:{problem.line}"
        seen[name] += 1
        if seen[name] > 1:  # two problems of one line are two items
            name += f"#{seen[name]}"
        items.append(ProblemItem.from_parent(session, name=name, problem=problem))
    return items


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
