"""A dataset that was edited and sealed is one that fits its manifest; without one there is none."""

from __future__ import annotations

import pytest

from aprverify.outcomes import NotRun
from falsifiers.shard_corpus import draw_ids, seal
from trainer.corpus.corpus import Corpus
from trainer.corpus.manifest import Manifest, Shard
from trainer.errors import DataError


def test_an_edited_dataset_fits_again_once_it_is_sealed(tmp_path):
    """The hash of the shard and that of the whole are made anew."""
    for name in ("train-00000.bin", "heldout-00000.bin"):
        (tmp_path / name).write_bytes(draw_ids(40, 0).tobytes())
    shards = {s: (Shard(f"{s}-00000.bin", 40, "0" * 64),) for s in ("train", "heldout")}
    Manifest("1" * 64, 257, 256, shards, "2" * 64, {}).write(tmp_path)
    with pytest.raises(DataError, match="sha256"):
        Corpus.open(tmp_path).verify()
    seal(tmp_path)
    Corpus.open(tmp_path).verify()


@pytest.mark.parametrize("content", [None, "[]", "{}", "no json"])
def test_a_dataset_of_another_layout_is_not_run(tmp_path, content):
    """Whose manifest cannot be read this way is no trainer that failed."""
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(NotRun, match="published layout"):
        seal(tmp_path)
