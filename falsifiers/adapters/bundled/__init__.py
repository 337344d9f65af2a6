"""The bundled trainer as a subject. Nothing else of the suite imports `trainer`.

Modules of the trainer are used through their attributes at call time, so that a defect planted in
one of them is seen here.
"""

from falsifiers.adapters.bundled.instance import BundledInstance
from falsifiers.adapters.bundled.subject import BundledSubject

__all__ = ["BundledInstance", "BundledSubject"]
