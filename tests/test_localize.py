"""``aprverify localize``: what it prints, writes and exits with."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from aprverify import cli
from aprverify.localizing.accuracy import ENOUGH, Row, render_accuracy, share

TEST = "FALSIFY-CUDA-FORWARD-PARITY-001.float32"
CASE = "arch=tiny-qwen2,seed=1"
ROOT = Path(__file__).resolve().parent.parent


def test_a_planted_fault_ends_in_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Layer, operator and kind of fault, exit status 1, and a picture that is XML."""
    picture = tmp_path / "depth.svg"
    arguments = ["localize", TEST, "--device", "cpu", "--case", f"device=cpu,{CASE}"]
    status = cli.main([*arguments, "--defect", "drop-k-bias-one", "--svg", str(picture)])
    out = capsys.readouterr().out
    assert status == 1
    assert "layers.2.self_attn.k_proj: bias not added" in out
    assert "claim logits" in out
    assert "layers.2.self_attn.k_proj" in "".join(ElementTree.parse(picture).getroot().itertext())


def test_a_clean_trainer_ends_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    """And its errors by depth are below their bounds."""
    status = cli.main(["localize", TEST, "--case", f"device=cpu,{CASE}", "--json"])
    (found,) = json.loads(capsys.readouterr().out)
    assert (status, found["findings"], found["outcome"]) == (0, [], "held")
    assert all(error <= 1 for points in found["by_depth"].values() for _, error in points)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["FALSIFY-CUDA-FORWARD-PARITY-001.float"], "did you mean"),
        ([TEST, "--case", "seed=77"], "there are:"),
        ([TEST, "--device", "cpu", "--defect", "drop-k-bias"], "drop-k-bias-one"),
        ([], "name an ID"),
        (["--runs", "nowhere", "nowhere"], "no train.jsonl"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_two(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what would be right."""
    assert cli.main(["localize", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_row_without_effect_counts_neither_way() -> None:
    """A share of nothing is no success."""
    right = Row("a", "T", "c", True, True, True, "x")
    wrong = Row("b", "T", "c", True, False, False, "y")
    idle = Row("c", "T", "c", False, False, False, "not in force here")
    assert share([right, wrong, idle], "place") == 0.5
    assert share([idle], "place") == 0.0
    assert "| b | T | c | WRONG | WRONG | y |" in render_accuracy([right, wrong], [idle])


def test_the_committed_table_is_above_its_bar() -> None:
    """Of the rows of the model that count, at least 95 % have the right place."""
    text = (ROOT / "docs" / "localize-accuracy.md").read_text(encoding="utf-8")
    model = text.partition("## Faults of the model")[2].partition("## Under the tests")[0]
    cells = [line.split("|")[4].strip() for line in model.splitlines() if line.startswith("| ")][1:]
    counted = [cell for cell in cells if cell != "—"]
    assert len(counted) > 50
    assert counted.count("right") / len(counted) >= ENOUGH
