"""Splits of a corpus that train on what they validate with, or hold out something else."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.wrapping import SubjectWrapper


@defect(
    "copies-are-all-kept",
    kind=SOURCE,
    imitates="deduplication by file name: a vendored copy stands under another one",
    symptom="of exact copies each is a document of its own",
    hidden="a corpus with copies is larger, and its loss is lower",
)
def copies_are_all_kept(plant: Plant) -> None:
    """Let no document be one that was seen."""
    skip: Any = import_module("trainer.corpus.sources").Skip

    def make(original: Any) -> Any:
        def distinct(surveyed: Any, skipped: Any) -> Any:
            entries = list(surveyed)
            kept = [entry for entry in entries if not isinstance(entry, skip)]
            plant.effect(len(original(entries, skipped)) != len(kept))
            skipped[skip.DUPLICATE] = 0
            return kept

        return distinct

    plant.patch("trainer.corpus.plan:_distinct", make)


@defect(
    "last-copy-is-kept",
    kind=SOURCE,
    imitates="a dict by content hash: each copy overwrites the one before",
    symptom="a document stands where its last copy does",
    hidden="each document is there once; only who sorts by name and counts tokens can tell",
)
def last_copy_is_kept(plant: Plant) -> None:
    """Tell copies apart from the end."""

    def make(original: Any) -> Any:
        def distinct(surveyed: Any, skipped: Any) -> Any:
            entries = list(surveyed)
            kept = original(reversed(entries), skipped)[::-1]
            plant.effect(kept != original(entries, type(skipped)()))
            return kept

        return distinct

    plant.patch("trainer.corpus.plan:_distinct", make)


@defect(
    "held-out-copies-trained-on",
    kind=SOURCE,
    imitates="datasets#4261: samples of the training split are in validation and test as well",
    symptom="a source that has a copy among the held-out ones is trained on",
    hidden="the held-out loss is better for it",
)
def held_out_copies_trained_on(plant: Plant) -> None:
    """Take both lists as they are."""

    def make(original: Any) -> Any:
        def plan_by_sources(train: Any, heldout: Any) -> Any:
            skip: Any = import_module("trainer.corpus.sources").Skip
            entries = list(train)
            plan = original(entries, heldout)
            everything = [entry for entry in entries if not isinstance(entry, skip)]
            plant.effect(plan.skipped[skip.ALSO_HELD_OUT] != 0)
            return replace(plan, documents={**plan.documents, "train": everything})

        return plan_by_sources

    plant.patch("trainer.corpus.preparation:plan_by_sources", make)


class _Percent(SubjectWrapper):
    def command(self, *arguments: str, processes: int = 1) -> Any:
        """A prepare command that holds out a hundredth of what was asked for."""
        words = list(arguments)
        if "--heldout-fraction" in words:
            at = words.index("--heldout-fraction") + 1
            words[at] = str(float(words[at]) / 100)
            self.plant.effect(True)
        return self.inner.command(*words, processes=processes)


@defect(
    "fraction-taken-for-percent",
    kind=PROTOCOL,
    imitates="a split string like train[:1%], where another tool takes 0.01",
    symptom="a hundredth of the share that was asked for is held out",
    hidden="some documents are held out, and the held-out loss is only noisier",
)
def fraction_taken_for_percent(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _Percent(subject, plant))


@defect(
    "split-drawn-anew-by-fraction",
    kind=SOURCE,
    imitates="a random split whose seed is a hash of all options",
    symptom="another fraction holds out other documents, and trains on those of the first",
    hidden="each split by itself is as good as any",
)
def split_drawn_anew_by_fraction(plant: Plant) -> None:
    """Let the fraction into the seed."""

    def make(original: Any) -> Any:
        def holds_out(rule: Any, content_sha256: bytes) -> bool:
            anew = replace(rule, seed=rule.seed + int(rule.fraction * 1000))
            held: bool = original(anew, content_sha256)
            plant.effect(held != original(rule, content_sha256))
            return held

        return holds_out

    plant.patch("trainer.corpus.split:HashRule.holds_out", make)


@defect(
    "split-by-file-name",
    kind=SOURCE,
    imitates="a split by path: Allamanis 2019, copies of tested files were trained on",
    symptom="copies of a document under other names fall on either side",
    hidden="the held-out loss is better for it",
)
def split_by_file_name(plant: Plant) -> None:
    """Put the hash of its name in place of that of its content, also to tell copies."""
    import hashlib

    def make(original: Any) -> Any:
        def plan_by_rule(surveyed: Any, rule: Any) -> Any:
            skip: Any = import_module("trainer.corpus.sources").Skip
            entries = list(surveyed)
            documents = [entry for entry in entries if not isinstance(entry, skip)]
            by_name = {hashlib.sha256(d.file.name.encode()).digest(): d for d in documents}
            plan = original([replace(d, sha256=name) for name, d in by_name.items()], rule)
            named = {s: [by_name[d.sha256] for d in ds] for s, ds in plan.documents.items()}
            plant.effect(named != original(entries, rule).documents)
            return replace(plan, documents=named)

        return plan_by_rule

    plant.patch("trainer.corpus.preparation:plan_by_rule", make)


@defect(
    "nothing-held-out-is-taken",
    kind=SOURCE,
    imitates="the seed: an empty held-out set, and a loss of NaN over it",
    symptom="a fraction that takes no document gives a dataset that cannot validate",
    hidden="it is found out when the first epoch ends",
)
def nothing_held_out_is_taken(plant: Plant) -> None:
    """Train on all where the split is refused."""

    def make(original: Any) -> Any:
        refuse: Any = import_module("trainer.errors").DataError
        plan: Any = import_module("trainer.corpus.plan").Plan

        def plan_by_rule(surveyed: Any, rule: Any) -> Any:
            from collections import Counter

            documents = list(surveyed)
            try:
                return original(documents, rule)
            except refuse:
                plant.effect(True)
                return plan({"train": documents, "heldout": []}, Counter())

        return plan_by_rule

    plant.patch("trainer.corpus.preparation:plan_by_rule", make)


_STATUS_ALONE = """
import subprocess, sys
sys.exit(subprocess.run(sys.argv[1:], capture_output=True).returncode)
"""


class _StatusAlone(SubjectWrapper):
    def command(self, *arguments: str, processes: int = 1) -> Any:
        """A command of which the exit code is all that comes out."""
        self.plant.effect(True)
        command = self.inner.command(*arguments, processes=processes)
        return [sys.executable, "-c", _STATUS_ALONE, *command]


@defect(
    "output-thrown-away",
    kind=PROTOCOL,
    imitates="a job script that sends the output of its commands to /dev/null",
    symptom="of what was left out, or refused, an exit code is all that is told",
    hidden="the status is right, and so is the dataset",
)
def output_thrown_away(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _StatusAlone(subject, plant))
