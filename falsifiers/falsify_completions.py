"""Does a trained model continue Python with Python?"""

from __future__ import annotations

from pathlib import Path

from falsifiers.fixtures import Assets, Case, Configuration, Measured, Subject


def falsify_completions_are_python(
    subject: Subject,
    case: Case,
    measured: Measured,
    configuration: Configuration,
    assets: Assets,
    tmp_path: Path,
) -> None:
    """Nearly every greedy continuation of a held-out prompt begins with parsing statements.

    The weights are those of a recorded run's last checkpoint, read from its bytes. What the model
    wrote is parsed and never run.
    """
    import numpy as np
    import torch

    from falsifiers.completions import split_prompts, statements_added
    from falsifiers.run_directory import RunRecord, weights_of
    from falsifiers.tokens import TEXTS

    (tmp_path / "encoder.json").symlink_to(assets("gpt2-vocabulary-encoder"))
    (tmp_path / "vocab.bpe").symlink_to(assets("gpt2-vocabulary-merges"))
    codec = subject.tokenizer(tmp_path)
    run = RunRecord(subject.run_directory(assets("recorded-run").parent))
    last = run.epochs[-1]
    instance = subject.build(configuration, device=case.device, dtype=case.dtype, seed=0)
    trained = weights_of(last.path)
    instance.set_parameters({n: torch.from_numpy(np.array(w)) for n, w in trained.items()})
    prompts = split_prompts((TEXTS / case.text).read_text(encoding="utf-8"))
    completions = {
        prompt: codec.decode(instance.generate(codec.encode(prompt), case.new).ids)
        for prompt in prompts
    }
    failed = [p for p, completion in completions.items() if not statements_added(p, completion)]
    measured(
        parameters_set=len(trained),
        parameters=len(instance.parameters()),
        prompts=len(prompts),
        distinct_completions=len(set(completions.values())),
        failed=len(failed),
        first_failed=failed[0] + completions[failed[0]] if failed else "",
        checkpoint=last.path.name,
        record=run.sha256(),
    )
