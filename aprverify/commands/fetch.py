"""``aprverify fetch [NAME…]``: get the files that claims need; the run itself opens no socket."""

from __future__ import annotations

import argparse
import sys

from aprverify.assets import AssetError, AssetStore


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser("fetch", help="download the assets that claims need")
    parser.add_argument("names", metavar="NAME", nargs="*", help="assets to fetch (default: all)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exit status 1 where an asset could not be had, 130 where stopped; nothing half is left."""
    try:
        AssetStore(args.suite.assets_file, {}).fetch(
            args.names, lambda line: print(line, flush=True)
        )
    except (AssetError, OSError) as error:
        print(f"fetch failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fetch stopped; what was whole is kept, nothing else", file=sys.stderr)
        return 130
    return 0
