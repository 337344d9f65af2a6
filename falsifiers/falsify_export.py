"""Is a model that was exported and read again the same model?"""

from __future__ import annotations

from falsifiers.fixtures import Case, Configuration, Measured, Subject


def falsify_export_keeps_the_model(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """Exported and loaded again, the first token's logits are the same, and so is every weight.

    The file is read twice: by the subject, whose mistakes in writing and reading may cancel, and by
    a reader that is not the subject's.
    """
    import torch
    from torch.nn.functional import cosine_similarity

    from falsifiers.errors import relative_error
    from falsifiers.exports import exported, read_export
    from falsifiers.inputs import distinct_ids, random_tokens, roughen

    source = subject.build(configuration, device=case.device, dtype=case.dtype, seed=case.seed)
    roughen(source, case.seed, case.roughness)
    ours = {name: parameter.cpu() for name, parameter in source.parameters().items()}
    path = exported(subject, source, case.format)
    theirs = read_export(path, case.format)
    architecture = subject.read_architecture(path)
    again = subject.build_pretrain(
        device=case.device,
        dtype=case.dtype,
        seed=case.seed + 1,
        init_arch=architecture,
        init_path=path,
    )
    tokens = random_tokens(configuration, 4, case.length, case.seed).to(source.device)
    before, after = source.logits(tokens)[:, -1], again.logits(tokens)[:, -1]
    table = (configuration["vocab_size"], configuration["hidden_size"])
    names = ours.keys() | theirs.keys()
    fields = configuration.keys() | architecture.keys()
    measured(
        first_token_cosine=cosine_similarity(after.double(), before.double(), dim=-1).min().item(),
        logit_error=relative_error(after, before),
        tensors_in_file=len(theirs),
        different_tensors=sum(
            n not in ours or n not in theirs or not torch.equal(ours[n], theirs[n]) for n in names
        ),
        tables=sum(tuple(tensor.shape) == table for tensor in theirs.values()),
        different_fields=sum(architecture.get(n) != configuration.get(n) for n in fields),
        distinct_tokens=distinct_ids(tokens),
    )
