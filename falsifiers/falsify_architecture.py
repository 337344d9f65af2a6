"""Is the frozen 370M architecture what the contract says, and is any other refused?"""

from __future__ import annotations

from falsifiers.fixtures import Case, Configuration, Measured, Subject


def falsify_parameter_count(subject: Subject, case: Case, measured: Measured) -> None:
    """The trainer's Llama-370M has exactly the nominal and stored parameters of its contract."""
    config = subject.configuration(case.arch)
    instance = subject.build(config, device=case.device, dtype="float32", seed=0)
    stored = sum(parameter.numel() for parameter in instance.parameters().values())
    head = config["vocab_size"] * config["hidden_size"]
    tied = "lm_head.weight" not in instance.parameters()
    measured(stored_count=stored, nominal_count=stored + head * tied, head_is_tied=tied)


def falsify_constants_equal_contract(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """The trainer's own constants equal the contract's, field by field, to the byte."""
    import json

    ours = {name: json.dumps(value) for name, value in subject.configuration(case.arch).items()}
    theirs = {name: json.dumps(value) for name, value in configuration.items()}
    different = [n for n in sorted(ours.keys() | theirs.keys()) if ours.get(n) != theirs.get(n)]
    config = subject.configuration(case.arch)
    measured(
        different_fields=len(different),
        which=", ".join(different),
        width_of_heads=config["num_heads"] * config["head_dim"],
        heads_left_over=config["num_heads"] % config["num_kv_heads"],
        theta=config["rope_theta"],
    )


def falsify_wrong_count_is_refused(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """A model outside the band is refused in every build, before any training state exists."""
    from falsifiers.refusals import attempt

    config = {**configuration, case.field: case.value}
    refusal = attempt(
        lambda: subject.build_pretrain(device="cpu", dtype="float32", seed=0, from_scratch=config)
    )
    measured(refused=refusal.refused, message=refusal.message)


def falsify_ends_of_the_band_belong_to_it(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """At either end of the band the count is right, and one parameter further it is refused.

    The device that is asked for is none, so that what passes the count is refused for that.
    """
    from falsifiers.refusals import attempt

    def refused_for_its_count(config: Configuration) -> bool:
        refusal = attempt(
            lambda: subject.build_pretrain(
                device="nowhere", dtype="float32", seed=0, from_scratch=config
            )
        )
        return "INV-ARCH-370M-001" in refusal.message

    counts = (case.least - 1, case.least, case.most, case.most + 1)
    below, least, most, above = (_of_nominal_count(configuration, count) for count in counts)
    measured(
        below_count=_nominal(below),
        below_refused=refused_for_its_count(below),
        least_count=_nominal(least),
        least_refused=refused_for_its_count(least),
        most_count=_nominal(most),
        most_refused=refused_for_its_count(most),
        above_count=_nominal(above),
        above_refused=refused_for_its_count(above),
    )


def falsify_wrong_count_is_refused_when_optimized(
    subject: Subject, case: Case, measured: Measured, configuration: Configuration
) -> None:
    """``python -O`` refuses a model outside the band as well: the check is no assert."""
    import json
    import subprocess

    from aprverify.planting import launch_command
    from falsifiers.subject import NotSupported

    config = json.dumps({**configuration, case.field: case.value})
    command = launch_command("falsifiers.probe_count", subject.target, config, flags=("-O",))
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if "not_supported" in found:
        raise NotSupported(found["not_supported"])
    measured(refused=found["refused"], message=found["message"], optimized=found["optimized"])


def _of_nominal_count(configuration: Configuration, nominal: int) -> Configuration:
    """A tied model with exactly so many parameters: width 1, and the vocabulary makes up for it."""
    one = {"num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "hidden_size": 1, "vocab_size": 1}
    config = {**configuration, **one, "intermediate_size": 1}
    if (nominal - _nominal(config)) % 2:
        config["intermediate_size"] = 2  # three parameters more; an id of the vocabulary is two
    return {**config, "vocab_size": 1 + (nominal - _nominal(config)) // 2}


def _nominal(config: Configuration) -> int:
    """Parameters by the oracle's shapes, the tied head counted once more."""
    from math import prod

    from falsifiers.reference.model import parameter_shapes

    stored = sum(prod(shape) for shape in parameter_shapes(config).values())
    head: int = config["vocab_size"] * config["hidden_size"]
    return stored + head
