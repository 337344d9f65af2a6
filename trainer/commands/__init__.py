"""The subcommands of `aprtrain`, one a file.

Each module has ``add_parser(commands)``, which imports no torch, and ``run(options) -> int``, which
may. `arguments` has the argument types that they share.
"""
