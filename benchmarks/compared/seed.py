"""Where the random numbers of every test begin: 0 is as its authors have it.

Clean runs from other beginnings show how often a test is red for no reason. A process has one.
"""

from __future__ import annotations

import os

VARIABLE = "COMPARED_SEED"
OFFSET = int(os.environ.get(VARIABLE, "0"))
