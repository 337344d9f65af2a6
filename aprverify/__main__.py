"""``python -m aprverify`` is the command ``aprverify``."""

import sys

from aprverify.cli import main

sys.exit(main())
