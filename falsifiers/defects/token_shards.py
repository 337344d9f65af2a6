"""Shards that are not the sources, and batches that are not every window once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.subject import Batch
from falsifiers.wrapping import SubjectWrapper


@defect(
    "sources-in-numeric-order",
    kind=SOURCE,
    imitates="a natural sort of file names, which no other reader of the shards uses",
    symptom="tokens-9 is written before tokens-10",
    hidden="every document is there, and training cannot tell",
)
def sources_in_numeric_order(plant: Plant) -> None:
    """Sort by the numbers in the names."""
    import re

    def make(original: Any) -> Any:
        def find_files(*arguments: Any) -> Any:
            found, skipped = original(*arguments)
            numbers = [[int(n) for n in re.findall(r"\d+", file.name)] for file in found]
            order = sorted(range(len(found)), key=numbers.__getitem__)
            plant.effect(order != list(range(len(found))))
            return [found[place] for place in order], skipped

        return find_files

    plant.patch("trainer.corpus.preparation:find_files", make)


class _LastSourceMissed(SubjectWrapper):
    def command(self, *arguments: str, processes: int = 1) -> list[str]:
        """A prepare command without the source in front of the options."""
        words = list(arguments)
        if words[0] == "prepare":
            self.plant.effect(True)
            del words[words.index("--heldout") - 1]
        command: list[str] = self.inner.command(*words, processes=processes)
        return command


@defect(
    "last-source-missed",
    kind=PROTOCOL,
    imitates="range(len(files) - 1) in a hand-written loop over shards",
    symptom="the last source is not in the dataset",
    hidden="a large corpus less one file is as good",
)
def last_source_missed(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _LastSourceMissed(subject, plant))


@defect(
    "shard-boundary-id-lost",
    kind=SOURCE,
    imitates="windows cut within each shard instead of over the stream (llm.c's data loader)",
    symptom="where a read goes on in the next shard it begins at that shard's second id",
    hidden="one window a shard is concerned, and it reads like text",
)
def shard_boundary_id_lost(plant: Plant) -> None:
    """Skip the first id after each boundary that a read crosses."""

    def make(original: Any) -> Any:
        def read(stream: Any, start: int, out: Any) -> None:
            original(stream, start, out)
            for end in stream._ends[:-1]:
                at = end - start
                if 0 < at < len(out) and end + len(out) - at < len(stream):
                    before = out.copy()
                    original(stream, end + 1, out[at:])
                    plant.effect(bool((before != out).any()))

        return read

    plant.patch("trainer.corpus.shards:TokenStream.read", make)


class _Batches(SubjectWrapper):
    """Changes the batches of a rank."""

    def training_batches(self, dataset: Path, **options: Any) -> Iterator[Any]:
        """The inner subject's under `changed` options, each row `spoiled`."""
        changed = self.changed(options)
        self.plant.effect(changed != options)
        for step, batches in enumerate(self.inner.training_batches(dataset, **changed)):
            spoiled = [Batch(self.spoiled(b.tokens, step), b.target_mask) for b in batches]
            pairs = zip(spoiled, batches, strict=True)
            self.plant.effect(any(not a.tokens.equal(b.tokens) for a, b in pairs))
            yield spoiled

    def changed(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options to ask for instead."""
        return options

    def spoiled(self, tokens: Any, step: int) -> Any:
        """Tokens to hand out instead."""
        return tokens


class _OneShort(_Batches):
    def spoiled(self, tokens: Any, step: int) -> Any:
        """Windows of length ids, the last of which is doubled to keep the shape."""
        import torch

        return torch.cat([tokens[:, :-1], tokens[:, -2:-1]], dim=1)


@defect(
    "window-of-length-ids",
    kind=PROTOCOL,
    imitates="blocks of length ids where length + 1 are needed, padded by the last one",
    symptom="the last target of every window is a copy of its last input",
    hidden="one target in a sequence is wrong, and easy to learn",
)
def window_of_length_ids(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _OneShort(subject, plant))


class _SameForEveryRank(_Batches):
    def changed(self, options: dict[str, Any]) -> dict[str, Any]:
        """Rank 0's batches for each rank."""
        return options | ({"rank": 0} if "rank" in options else {})


@defect(
    "every-rank-same-data",
    kind=PROTOCOL,
    imitates="datasets#5360, #7868: no split by rank",
    symptom="every rank trains on the batches of rank 0",
    hidden="the loss falls as usual, from a batch that is smaller than it looks",
)
def every_rank_same_data(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _SameForEveryRank(subject, plant))


@defect(
    "windows-drawn-with-replacement",
    kind=SOURCE,
    imitates="nanoGPT's get_batch: random offsets instead of a permutation",
    symptom="some windows come twice in an epoch and others never",
    hidden="in expectation every token is used as often",
)
def windows_drawn_with_replacement(plant: Plant) -> None:
    """Draw each place's window by itself."""
    import numpy as np

    def make(original: Any) -> Any:
        def permute(indices: Any, count: int, seed: int, epoch: int) -> Any:
            drawn = np.array(
                [np.random.default_rng((seed, epoch, int(i))).integers(count) for i in indices],
                dtype=np.int64,
            )
            plant.effect(bool((drawn != original(indices, count, seed, epoch)).any()))
            return drawn

        return permute

    plant.patch("trainer.corpus.sampler:permute", make)


@defect(
    "same-order-every-epoch",
    kind=SOURCE,
    imitates="a DistributedSampler without set_epoch",
    symptom="each epoch has the order of the first",
    hidden="every window comes once an epoch, as it should",
)
def same_order_every_epoch(plant: Plant) -> None:
    """Permute by the seed alone."""

    def make(original: Any) -> Any:
        def permute(indices: Any, count: int, seed: int, epoch: int) -> Any:
            plant.effect(epoch != 0)
            return original(indices, count, seed, 0)

        return permute

    plant.patch("trainer.corpus.sampler:permute", make)


class _SeedIgnored(_Batches):
    def changed(self, options: dict[str, Any]) -> dict[str, Any]:
        """Batches of another seed, always the same."""
        return options | {"seed": 12345}


@defect(
    "order-seed-ignored",
    kind=PROTOCOL,
    imitates="a shuffle seeded by a constant",
    symptom="every seed has the same order",
    hidden="runs are wonderfully reproducible",
)
def order_seed_ignored(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _SeedIgnored(subject, plant))


@defect(
    "last-window-needs-an-id-more",
    kind=SOURCE,
    imitates="len(stream) - 2 where len(stream) - 1 was meant, or < for <= in a bound",
    symptom="a stream that its windows fill to the last id gives one window less",
    hidden="of almost every other length there are as many windows as there should be",
)
def last_window_needs_an_id_more(plant: Plant) -> None:
    """Count as if the stream were one id shorter."""

    def make(original: Any) -> Any:
        def windows(corpus: Any, seq_length: int) -> int:
            right: int = original(corpus, seq_length)
            count = (len(corpus._train) - 2) // seq_length
            plant.effect(count != right)
            return count

        return windows

    plant.patch("trainer.corpus.corpus:Corpus.windows", make)


@defect(
    "order-drawn-from-too-few-bits",
    kind=SOURCE,
    imitates="a rounding down where half the bits of an odd number are taken",
    symptom="of some numbers of windows the highest share places with others",
    hidden="of a number with an even count of bits each window comes once",
)
def order_drawn_from_too_few_bits(plant: Plant) -> None:
    """Permute as many as fit, and let the others be those again."""

    def make(original: Any) -> Any:
        def permute(indices: Any, count: int, seed: int, epoch: int) -> Any:
            held = min(count, 1 << (count - 1).bit_length() // 2 * 2)
            plant.effect(held != count)
            return original(indices % held, held, seed, epoch)

        return permute

    plant.patch("trainer.corpus.sampler:permute", make)


@defect(
    "last-part-shuffled-by-itself",
    kind=SOURCE,
    imitates="a network over too few bits, which leaves the highest bit where it is",
    symptom="windows beyond the largest power of four stay beyond it in every epoch",
    hidden="each window comes once an epoch, and next to none keeps its place",
)
def last_part_shuffled_by_itself(plant: Plant) -> None:
    """Permute both parts, each within itself."""
    import numpy as np

    def make(original: Any) -> Any:
        def permute(indices: Any, count: int, seed: int, epoch: int) -> Any:
            split = 1 << (count - 1).bit_length() // 2 * 2
            if split >= count:
                return original(indices, count, seed, epoch)
            plant.effect(True)
            low = original(indices % split, split, seed, epoch)
            high = original((indices - split) % (count - split), count - split, seed, epoch)
            return np.where(indices < split, low, split + high)

        return permute

    plant.patch("trainer.corpus.sampler:permute", make)


@defect(
    "journal-of-another-plan-is-gone-on-with",
    kind=SOURCE,
    imitates="a cache keyed by the output's name, or by the number of files",
    symptom="an unfinished dataset is finished with other documents than it was begun with",
    hidden="every shard is intact by its hash, and the text reads well",
)
def journal_of_another_plan_is_gone_on_with(plant: Plant) -> None:
    """Tell plans apart by how many documents they have."""
    import hashlib

    def make(original: Any) -> Any:
        def sha256(plan: Any, *context: Any) -> str:
            counts = [len(documents) for documents in plan.documents.values()]
            plant.effect(True)
            return hashlib.sha256(repr(counts).encode()).hexdigest()

        return sha256

    plant.patch("trainer.corpus.plan:Plan.sha256", make)


_REFUSES_WHAT_STANDS = """
import os, sys
out, *command = sys.argv[1:]
if os.path.isdir(out):
    sys.exit(f"{out}: there is such a folder")
os.execvp(command[0], command)
"""


class _UnfinishedForEver(SubjectWrapper):
    def command(self, *arguments: str, processes: int = 1) -> list[str]:
        """A prepare command that runs only where there is no output folder yet."""
        command: list[str] = self.inner.command(*arguments, processes=processes)
        if arguments[0] != "prepare":
            return command
        self.plant.effect(True)
        out = arguments[arguments.index("--out") + 1]
        return [sys.executable, "-c", _REFUSES_WHAT_STANDS, out, *command]


@defect(
    "unfinished-dataset-is-refused",
    kind=PROTOCOL,
    imitates="a mkdir of the output without exist_ok, before anything is looked at",
    symptom="a preparation that was cut short is refused also with its own sources",
    hidden="a preparation that comes to its end at once never meets it",
)
def unfinished_dataset_is_refused(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _UnfinishedForEver(subject, plant))


@defect(
    "plan-digest-of-each-process",
    kind=SOURCE,
    imitates="a digest over a set of strings, whose order PYTHONHASHSEED draws anew",
    symptom="an unfinished dataset is refused as one of other sources, though they are the same",
    hidden="a preparation that comes to its end never asks",
)
def plan_digest_of_each_process(plant: Plant) -> None:
    """Put the number of the process into the digest."""
    import os

    def make(original: Any) -> Any:
        def sha256(plan: Any, *context: Any) -> str:
            plant.effect(True)
            return str(original(plan, *context, os.getpid()))

        return sha256

    plant.patch("trainer.corpus.plan:Plan.sha256", make)
