"""The bundled suite: falsifiers, oracle, defects and subjects."""
