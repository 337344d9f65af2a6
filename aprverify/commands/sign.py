"""``aprverify sign RUN --key FILE``: answer for a run, so that no later edit of it is believed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aprverify.evidence import verdict
from aprverify.evidence.reader import read_run
from aprverify.evidence.refusals import EvidenceRefused
from aprverify.trust.keys import KeyProblem, PublicKey, generate_key, load_key
from aprverify.trust.signing import NotSigned, sign_run
from aprverify.trust.trusted import TRUSTED_FILE, Trusted, read_trusted
from aprverify.views.intoto import statement

_USAGE = 2


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "sign",
        help="sign a run, or make a key to sign with",
        description="Sign a run: writes run.dsse.json beside it. Exit status 0 signed, 2 usage or "
        "a key that cannot be used, 7 the run or its signature file is refused.",
    )
    parser.add_argument(
        "path", metavar="RUN", type=Path, nargs="?", help="a run's folder or its run.jsonl"
    )
    parser.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="the private key, PEM, mode 0600"
    )
    parser.add_argument(
        "--identity", metavar="NAME", help="who signs; refused where the key is not NAME's"
    )
    parser.add_argument(
        "--trusted", type=Path, metavar="FILE", help=f"trusted keys (default: {TRUSTED_FILE})"
    )
    parser.add_argument(
        "--generate-key", action="store_true", help="make a key at --key, which must not exist"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Sign, or make a key; the private half is never printed."""
    if args.generate_key is (args.path is not None):
        print("aprverify sign: name a RUN, or use --generate-key, not both", file=sys.stderr)
        return _USAGE
    try:
        if args.generate_key:
            return _generate(args.key, args.identity)
        trusted = read_trusted(args.trusted or args.suite.root / TRUSTED_FILE)
        return _sign(args.path, args.key, args.identity, trusted)
    except EvidenceRefused as refusal:
        print(f"refused ({type(refusal).__name__}): {refusal}", file=sys.stderr)
        return verdict.REFUSED
    except (KeyProblem, NotSigned) as problem:
        print(f"aprverify sign: {problem}.", file=sys.stderr)
        return _USAGE
    except FileExistsError:
        print(
            f"aprverify sign: {args.key} exists; a key is never overwritten. Name another file.",
            file=sys.stderr,
        )
        return _USAGE


def _generate(path: Path, identity: str | None) -> int:
    public = generate_key(path)
    print(
        f"The private key is {path}: keep it secret, and out of the repository.\n"
        f"Whoever trusts it adds this to the identities of {TRUSTED_FILE}:\n"
        f"  - name: {identity or 'NAME'}\n"
        f'    keys: ["{public.text}"]'
    )
    return verdict.OK


def _sign(path: Path, key_file: Path, identity: str | None, trusted: Trusted) -> int:
    found = read_run(path)
    key = load_key(key_file)
    if identity is not None and trusted.owner(key.public) != identity:
        owner = trusted.owner(key.public)
        whose = f"{owner}'s" if owner else "nobody's"
        raise KeyProblem(f"{key_file}: by {trusted.path} this key is {whose}, not {identity}'s")
    file = sign_run(found, key, statement)
    print(f"{file}\nSigned by {_who(key.public, trusted)}.")
    return verdict.OK


def _who(key: PublicKey, trusted: Trusted) -> str:
    owner = trusted.owner(key)
    return f"{owner} ({key.key_id})" if owner else f"{key.key_id}, which nobody trusts yet"
