"""Run a module under a planted defect.

    python -m aprverify.launch SUITE FILE DEFECT REPORT MODULE [ARG …]

Falsifiers that test a command line start it in a process of its own, where patches made in this
process do not exist. This launcher plants first and then becomes the command. It imports FILE of
the suite's defects and no other: all of them take longer than many a command.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from aprverify.planting import Plant, load_defect
from aprverify.suite import find_suite


def main() -> None:
    """Plant the named defect, run the module as ``__main__``, report the effects on the way out."""
    _, suite_name, file, defect_id, report, module, *arguments = sys.argv
    defect = load_defect(find_suite(suite_name), file, defect_id)
    plant = Plant(defect)
    defect.plant(plant)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        plant.report(Path(report))


if __name__ == "__main__":
    main()
