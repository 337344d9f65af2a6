"""Which lines are seen to be executed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from aprverify.mutants.lines import new_log, read_lines

_ROOT = Path(__file__).resolve().parents[2]
_MODULE = """\
SIZE = 3


class Kept:
    size = 4


def called(x):
    if x:
        return 1
    return 2


def never():
    return 3
"""
_PROGRAM = """\
import json, os, resource, sys
from pathlib import Path
from aprverify.mutants.lines import watch_lines

resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
watch_lines(Path(sys.argv[1]), json.loads(sys.argv[2]))
import threading
from watched import module

if os.fork() == 0:
    thread = threading.Thread(target=module.called, args=(0,))
    thread.start()
    thread.join()
    os.kill(os.getpid(), 9)
os.wait()
"""


def test_lines_are_told_of_threads_of_forks_that_are_killed_on_a_full_disk(tmp_path: Path) -> None:
    """And not those that importing alone executes."""
    package = tmp_path / "watched"
    package.mkdir()
    (package / "module.py").write_text(_MODULE)
    (package / "__init__.py").write_text("")
    places = new_log(tmp_path / "log", package)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path / "log"), json.dumps(places)],
        cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{_ROOT}"}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read_lines(tmp_path / "log", places, package) == {"module.py": [9, 11]}
