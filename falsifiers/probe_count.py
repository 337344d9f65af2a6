"""In a process of its own: is a model of the wrong size refused? Prints the answer as JSON.

    python -O -m falsifiers.probe_count MODULE:ATTRIBUTE CONFIGURATION

An optimised interpreter drops assert statements, so what is only asserted is not checked.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict

from falsifiers.refusals import attempt
from falsifiers.subject import NotSupported


def main() -> None:
    """Try to build the configuration as the pretrain command would, from scratch on the CPU."""
    _, target, configuration = sys.argv
    module, _, attribute = target.partition(":")
    subject = getattr(importlib.import_module(module), attribute)()
    config = json.loads(configuration)
    try:
        refusal = attempt(
            lambda: subject.build_pretrain(
                device="cpu", dtype="float32", seed=0, from_scratch=config
            )
        )
    except NotSupported as error:
        print(json.dumps({"not_supported": str(error)}))
        return
    print(json.dumps({**asdict(refusal), "optimized": not __debug__}))


if __name__ == "__main__":
    main()
