"""Does the tokenizer have as many ids as the 370M model has rows, and is any other refused?"""

from __future__ import annotations

from pathlib import Path

from falsifiers.fixtures import Assets, Case, Configuration, Measured, Subject


def falsify_real_vocabulary_fits_the_model(
    subject: Subject,
    case: Case,
    measured: Measured,
    configuration: Configuration,
    assets: Assets,
    tmp_path: Path,
) -> None:
    """GPT-2's vocabulary has an id for each row, uses the last, and passes the pre-flight."""
    from functools import partial

    from falsifiers.refusals import attempt
    from falsifiers.tokens import TEXTS

    (tmp_path / "encoder.json").symlink_to(assets("gpt2-vocabulary-encoder"))
    (tmp_path / "vocab.bpe").symlink_to(assets("gpt2-vocabulary-merges"))
    codec = subject.tokenizer(tmp_path)
    text = (TEXTS / case.text).read_text(encoding="utf-8")
    ids = codec.encode(text)
    size = codec.vocab_size
    from_scratch, with_weights = (
        attempt(partial(subject.require_fitting_tokenizer, size, configuration, init=init))
        for init in (False, True)
    )
    measured(
        tokenizer_size=size,
        rows=subject.configuration(case.arch)["vocab_size"],
        refused=from_scratch.refused + with_weights.refused,
        text_survives=codec.decode(ids) == text,
        largest_id=max(ids),
        ends_a_text=codec.decode([size - 1]),
    )


def falsify_other_sizes_are_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """From scratch one id more or less is refused; with initial weights one more is."""
    from falsifiers.refusals import attempt

    refusal = attempt(
        lambda: subject.require_fitting_tokenizer(case.size, configuration, init=case.init)
    )
    accepted = attempt(
        lambda: subject.require_fitting_tokenizer(case.nearest, configuration, init=case.init)
    )
    measured(
        refused=refusal.refused,
        names_tokenizer=str(case.size) in refusal.message,
        names_model=str(configuration["vocab_size"]) in refusal.message,
        nearest_refused=accepted.refused,
    )
