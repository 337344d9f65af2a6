"""Where the parts of the bundled suite stand. Found by the entry point ``bundled``."""

from __future__ import annotations

from pathlib import Path

from aprverify.suite import Suite

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent
# Installed from a wheel, the root is where packages live: runs then go where the user stands.
_WORK = _ROOT if (_ROOT / "pyproject.toml").exists() else Path.cwd()

SUITE = Suite(
    name="bundled",
    root=_ROOT,
    contracts_dir=_ROOT / "contracts",
    falsifiers_dir=_HERE,
    package="falsifiers",
    defects_dir=_HERE / "defects",
    subjects={
        "bundled": "falsifiers.adapters.bundled:BundledSubject",
        "transformers": "falsifiers.adapters.transformers_models:TransformersSubject",
    },
    canary="falsifiers.canary:measure",
    on_plant="falsifiers.canary:reset_compiler",
    assets_file=_HERE / "assets.yaml",
    evidence_dir=_WORK / "evidence",
    sources=("falsifiers", "trainer"),
    after_entry="falsifiers.device_memory:give_back",
)
