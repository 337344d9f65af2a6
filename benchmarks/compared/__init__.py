"""The planted defects under the checks that others rely on.

`python -m benchmarks.compared --help`; what came out is in `docs/compared.md`.
"""
