"""The command that signs, and what other commands say of who answers for a run."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from aprverify.cli import main
from aprverify.evidence.promote import promote
from aprverify.evidence.reader import read_run
from aprverify.trust.refusals import WrongSubject
from aprverify.trust.trusted import Trusted, read_trusted
from aprverify.trust.verify import SIGNATURE_FILE, signature_words, verify
from tests.evidence.builder import row, write_run

pytest.importorskip("cryptography", reason="signatures need the extra `sign`")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An unsigned run."""
    return write_run(tmp_path / "run" / "run.jsonl")


def new_key(path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Make a key by the command; what is to be added to the trusted keys."""
    capsys.readouterr()
    assert main(["sign", "--generate-key", "--key", str(path), "--identity", name]) == 0
    said = capsys.readouterr().out
    assert path.read_text().splitlines()[1] not in said
    return "\n".join(line for line in said.splitlines() if line.startswith("  "))


def sign(file: Path, key: Path, trusted: Path, *more: str) -> int:
    """The exit status of signing."""
    return main(["sign", str(file), "--key", str(key), "--trusted", str(trusted), *more])


@pytest.fixture
def trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Two who are trusted, as the command wrote them."""
    identities = [new_key(tmp_path / f"{name}.pem", name, capsys) for name in ("ann", "bob")]
    path = tmp_path / "trusted-keys.yaml"
    path.write_text("\n".join(["identities:", *identities]) + "\n")
    return path


def test_a_run_is_signed_and_verified(tmp_path: Path, file: Path, trusted: Path) -> None:
    """And a second one signs beside the first, who is still there."""
    assert "unsigned" in signature_words(read_run(file), read_trusted(trusted))
    assert sign(file, tmp_path / "bob.pem", trusted, "--identity", "bob") == 0
    assert verify(file.parent, read_trusted(trusted)).identity == "bob"
    assert sign(file, tmp_path / "ann.pem", trusted) == 0
    signature = verify(file, read_trusted(trusted))
    assert (signature.identity, signature.others) == ("ann", ("bob",))
    assert verify(file, read_trusted(trusted), "bob").others == ("ann",)
    said = signature_words(read_run(file), read_trusted(trusted))
    key = f"verified against its key {signature.key_id} in {trusted}"
    assert said == f"signed by ann ({key}), and by bob"
    nobody = signature_words(read_run(file), Trusted(Path("none.yaml")))
    assert "by nobody who is known" in nobody and "verified" not in nobody


def test_check_says_first_who_answers_for_a_run(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody, unless it is signed."""
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out.startswith("Signature: unsigned")


def test_a_run_that_changed_after_it_was_signed_says_so(
    tmp_path: Path, file: Path, trusted: Path
) -> None:
    """Worse than unsigned: `check` refuses it too."""
    sign(file, tmp_path / "ann.pem", trusted)
    file.unlink()
    write_run(file, (row("falsified"),))
    with pytest.raises(WrongSubject):
        signature_words(read_run(file), read_trusted(trusted))
    assert main(["check", str(file)]) == 7
    file.with_name(SIGNATURE_FILE).unlink()
    assert main(["check", str(file)]) == 1


def test_the_statement_is_the_views_own(tmp_path: Path, file: Path, trusted: Path) -> None:
    """Others read the envelope with tools of their own: in-toto's type, statement and digest."""
    sign(file, tmp_path / "ann.pem", trusted)
    body = json.loads(file.with_name(SIGNATURE_FILE).read_text())
    assert body["payloadType"] == "application/vnd.in-toto+json"
    payload = json.loads(base64.b64decode(body["payload"]))
    assert payload["_type"] == "https://in-toto.io/Statement/v1"
    assert payload["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert payload["subject"][0]["digest"]["sha256"] == read_run(file).sha256


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--identity", "bob"), "this key is ann's, not bob's"),
        (("--identity", "eve"), "this key is ann's, not eve's"),
        ((), "signed it before"),
    ],
)
def test_a_signature_that_would_mislead_is_not_made(
    tmp_path: Path,
    file: Path,
    trusted: Path,
    more: tuple[str, ...],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Under another's name, or twice with one key; what is there stays as it is."""
    assert sign(file, tmp_path / "ann.pem", trusted) == 0
    before = file.with_name(SIGNATURE_FILE).read_bytes()
    assert sign(file, tmp_path / "ann.pem", trusted, *more) == 2
    assert says in capsys.readouterr().err
    assert file.with_name(SIGNATURE_FILE).read_bytes() == before


def test_a_refused_run_is_not_signed(tmp_path: Path, file: Path, trusted: Path) -> None:
    """Nor is a run beside which lies another one's signature."""
    file.write_bytes(file.read_bytes()[:-1])
    assert sign(file, tmp_path / "ann.pem", trusted) == 7
    assert not file.with_name(SIGNATURE_FILE).exists()


def test_a_stale_signature_is_not_added_to(
    tmp_path: Path, file: Path, trusted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It answers for other bytes."""
    sign(file, tmp_path / "ann.pem", trusted)
    file.unlink()
    write_run(file, (row("falsified"),))
    assert sign(file, tmp_path / "bob.pem", trusted) == 2
    assert "signs another statement" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--key", "k.pem"], ["run", "--generate-key", "--key", "k.pem"]]
)
def test_one_thing_at_a_time(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run to sign, or a key to make."""
    monkeypatch.chdir(tmp_path)
    assert main(["sign", *arguments]) == 2
    assert not (tmp_path / "k.pem").exists()


def test_an_existing_key_is_kept(
    tmp_path: Path, trusted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With words for it, and status 2."""
    before = (tmp_path / "ann.pem").read_bytes()
    assert main(["sign", "--generate-key", "--key", str(tmp_path / "ann.pem")]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert (tmp_path / "ann.pem").read_bytes() == before


def test_a_run_is_promoted_with_its_signature(tmp_path: Path, file: Path, trusted: Path) -> None:
    """Whoever reads the committed run can ask who answers for it."""
    sign(file, tmp_path / "ann.pem", trusted)
    found = read_run(file)
    folder = promote(found, tmp_path / "evidence", {r.key: r.source_id for r in found.rows})
    assert verify(folder, read_trusted(trusted)).identity == "ann"
