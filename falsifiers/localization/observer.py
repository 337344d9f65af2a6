"""Stands between a falsifier and its subject and looks at what the falsifier looks at.

So a claim is localized on the case's own inputs, whatever its falsifier does, and for any subject.
Every look happens when the call is made, since weights move on afterwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from falsifiers.localization.buffers import buffers_of, judge_buffers
from falsifiers.localization.findings import Bounds, Finding, Look, trusted
from falsifiers.localization.initial import file_weights, judge_parameters
from falsifiers.localization.lone_operators import ObservedOperators
from falsifiers.localization.ranks import TwinStep, judge_ranks
from falsifiers.localization.repeats import Life, identity, judge_repeats
from falsifiers.localization.results import judge_evaluation, judge_gradients, judge_logits
from falsifiers.localization.run_pair import compare_runs
from falsifiers.localization.steps import Hyper, Micro, State, Step, judge_step
from falsifiers.localization.trace import judge_trace
from falsifiers.run_directory import RunRecord
from falsifiers.subject import (
    EAGER,
    Batch,
    Configuration,
    Execution,
    NotSupported,
    OperatorRecord,
    RunResult,
    StepMetrics,
    micro_batches,
)
from falsifiers.subject_parts import Generated, Moments, Sampling

_TRACES = 6
"""Traces of one session: each recomputes a model in float64, and a falsifier may call hundreds."""
_STEPS = 12
_REPEATED = 12_000_000_000
"""Bytes of each instance's state that are digested, to tell repetitions of one seed apart."""


@dataclass
class Observer:
    """What was seen during one run of a falsifier.

    Attributes:
        bounds: factors over plain torch's error.
        hyper: AdamW's constants.
        look: findings and points so far, causes first.
        notes: what could not be looked at, and why.
        layers: of the last instance.
        looks: how often anything was looked at.
        ranks: the most processes that a command was asked for with.
        directories: of finished runs that the falsifier asked for.
        twin: steps of one process that took a micro-batch of each rank.
        tables: buffers that are wrong, by place, that nobody was seen to read, and
        acquitted: those whose reader was right by its bound.
        lives: of instances that were to be deterministic.
    """

    bounds: Bounds
    hyper: Hyper
    look: Look = field(default_factory=Look)
    notes: dict[str, None] = field(default_factory=dict)
    layers: int = 0
    looks: int = 0
    traces: int = 0
    steps: int = 0
    operators: list[ObservedOperators] = field(default_factory=list)
    ranks: int = 1
    directories: list[Path] = field(default_factory=list)
    twin: list[TwinStep] = field(default_factory=list)
    tables: dict[str, Finding] = field(default_factory=dict)
    acquitted: dict[str, Finding] = field(default_factory=dict)
    lives: list[Life] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether something was found that a right operator never shows."""
        return any(trusted(finding) for finding in self.look.findings)

    def subject(self, inner: Any) -> ObservedSubject:
        """The subject to hand to the falsifier."""
        return ObservedSubject(inner, self)

    def take(self, look: Look, call: str) -> None:
        """Keep what a look showed."""
        self.looks += 1
        found = [replace(finding, seen_in=call) for finding in look.findings]
        if look.points and (found or not self.look.points) and not self.settled:
            self.look.points = look.points  # the picture is that of the look that found it
        self.look.findings += found

    def take_buffers(self, found: Sequence[Finding], call: str) -> None:
        """Keep wrong tables aside until it is seen whether they do any harm."""
        self.looks += bool(found)
        for finding in found:
            self.tables.setdefault(finding.where, replace(finding, seen_in=call))

    def take_read(self, look: Look, records: Sequence[OperatorRecord], call: str) -> None:
        """Keep what a trace showed, behind the tables that its rotations got wrong results from."""
        rotations = {record.name for record in records if record.kind == "rope"}
        if any(f.phase == "forward" and f.where in rotations for f in look.findings):
            look.findings[:0] = self.tables.values()
            self.tables.clear()
        elif rotations:
            self.acquitted.update(self.tables)
        self.take(look, call)

    def finish(self) -> None:
        """Judge what still waits for its gradients; then doubtful findings come last."""
        for operators in self.operators:
            operators.finish()
        try:
            self._judge_runs()
        except (OSError, ValueError, KeyError) as error:
            self.notes[f"run directories were not compared: {error}"[:200]] = None
        if not self.settled and (parted := list(judge_repeats(self.lives))):
            self.take(Look(parted), "a second run of the same seed")
        self.look.findings.sort(key=lambda finding: not trusted(finding))
        self._place_buffers()

    def _place_buffers(self) -> None:
        """Tables that nobody was seen to read come first; others only where nothing else is."""
        unread = [f for where, f in self.tables.items() if where not in self.acquitted]
        self.look.findings[:0] = unread
        if not self.look.findings:
            self.look.findings += self.acquitted.values()
        else:
            for finding in self.acquitted.values():
                self.notes[f"what reads it is within its bound, but {finding.sentence}"] = None

    def _judge_runs(self) -> None:
        """Runs of several ranks against their twin, and runs of one identity with each other."""
        if self.ranks > 1 and self.twin and self.directories and not self.settled:
            log = RunRecord(self.directories[-1]).log
            self.take(Look(list(judge_ranks(log, self.twin))), f"the log of {self.ranks} ranks")
        for one, other in itertools.combinations(dict.fromkeys(self.directories), 2):
            same = RunRecord(one).identity == RunRecord(other).identity
            if same and not self.settled:
                # One may have ended sooner; what both have left must be the same.
                ended = ("log", "checkpoints")
                parted = [f for f in compare_runs(one, other).findings if f.phase not in ended]
                self.take(Look(parted), "two runs of the same settings and seed")


class ObservedSubject:
    """A subject whose instances and operators are looked at."""

    def __init__(self, inner: Any, observer: Observer) -> None:
        self._inner, self._observer = inner, observer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def build(self, config: Configuration, **options: Any) -> ObservedInstance:
        """See the protocol."""
        built = self._inner.build(config, **options)
        self._configured(built.config, config)
        instance = ObservedInstance(built, config, options["dtype"], self._observer)
        if options.get("execution", EAGER).deterministic:
            instance.live(Life(identity(config, options)))
        return instance

    def build_pretrain(self, **options: Any) -> ObservedInstance:
        """See the protocol."""
        built = self._inner.build_pretrain(**options)
        path: Path | None = options.get("init_path")
        asked = options.get("init_arch") or options.get("from_scratch") or built.config
        instance = ObservedInstance(built, asked, options["dtype"], self._observer)
        if path is not None and (right := file_weights(path)) is not None:
            look = judge_parameters(built.parameters(), right, path.name)
            self._observer.take(look, "build_pretrain")
        return instance

    def command(self, *arguments: str, processes: int = 1) -> list[str]:
        """See the protocol."""
        self._observer.ranks = max(self._observer.ranks, processes)
        found: list[str] = self._inner.command(*arguments, processes=processes)
        return found

    def run_directory(self, path: Path) -> Path:
        """See the protocol."""
        found: Path = self._inner.run_directory(path)
        self._observer.directories.append(found)
        return found

    def operators(self, execution: Execution = EAGER) -> Any:
        """See the protocol."""
        observed = ObservedOperators(self._inner.operators(execution), self._observer)
        self._observer.operators.append(observed)
        return observed

    def _configured(self, built: Configuration, asked: Configuration) -> None:
        for name, value in asked.items():
            if name in built and built[name] != value:
                said = f"the instance itself says {name} = {built[name]!r}, asked was {value!r}"
                self._observer.notes[said] = None


class ObservedInstance:
    """An instance that is traced on the inputs that a falsifier gives it."""

    def __init__(self, inner: Any, asked: Configuration, dtype: str, observer: Observer) -> None:
        self._inner, self._asked, self._dtype, self._observer = inner, asked, dtype, observer
        self._seen: set[tuple[Any, ...]] = set()
        self._version = 0
        self._imposed: set[str] = set()
        self._passes: dict[str, list[Tensor]] | None = None
        self._looking = False
        self._records: Sequence[OperatorRecord] = ()
        self._life: Life | None = None
        self._digested = 0
        observer.layers = asked["num_layers"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def live(self, life: Life) -> None:
        """Keep what this instance is given and holds, to be compared with others of its kind."""
        if self._affordable(tensors=1):
            life.began(self._weights())
            self._life = life
            self._observer.lives.append(life)

    def _affordable(self, *, tensors: int) -> bool:
        """Whether so many tensors for each parameter can still be digested."""
        held = sum(p.numel() * p.element_size() for p in self._inner.parameters().values())
        self._digested += tensors * held
        if self._digested <= _REPEATED:
            return True
        self._observer.notes["too large to compare all steps of equal runs bit by bit"] = None
        self._life = None
        return False

    def set_parameters(self, values: Mapping[str, Tensor]) -> None:
        """See the protocol; what is set must be there afterwards."""
        if self._life is not None:
            self._life.given(values)
        self._inner.set_parameters(values)
        self._version += 1
        held = self._inner.parameters()
        kept = {n: held[n] for n in values if n in held}
        right = {n: v.to(held[n].device, held[n].dtype) for n, v in values.items() if n in held}
        self._observer.take(judge_parameters(kept, right, "set_parameters"), "set_parameters")

    def logits(self, tokens: Tensor) -> Tensor:
        """See the protocol."""
        batch = Batch(torch.cat((tokens, tokens[:, :1]), dim=1))
        fresh = self._trace(batch, "logits")
        ours: Tensor = self._inner.logits(tokens)
        if fresh:
            with self._judging("logits"):
                self._observer.take(
                    judge_logits(
                        ours, tokens.to(ours.device), self._weights(), self._asked,
                        self._records, self._dtype, self._observer.bounds,
                    ),
                    "logits",
                )  # fmt: skip
        return ours

    def loss_and_gradients(self, batch: Batch) -> tuple[float, Mapping[str, Tensor]]:
        """See the protocol."""
        fresh = self._trace(batch, "loss_and_gradients")
        loss, gradients = self._inner.loss_and_gradients(batch)
        if fresh and not self._imposed:
            with self._judging("loss_and_gradients"):
                self._observer.take(
                    judge_gradients(
                        loss, gradients, batch.to(self._inner.device), self._weights(),
                        self._asked, self._records, self._dtype, self._observer.bounds,
                    ),
                    "loss_and_gradients",
                )  # fmt: skip
        return loss, gradients

    def evaluate(self, batches: Sequence[Batch]) -> float:
        """See the protocol."""
        batches = list(batches)
        fresh = self._trace(batches[0], "evaluate") if batches else False
        ours: float = self._inner.evaluate(batches)
        if fresh:
            with self._judging("evaluate"):
                here = [batch.to(self._inner.device) for batch in batches]
                self._observer.take(
                    judge_evaluation(
                        ours, here, self._weights(), self._asked, self._dtype,
                        self._observer.bounds,
                    ),
                    "evaluate",
                )  # fmt: skip
        return ours

    def on_gradient(self, name: str, hook: Any) -> None:
        """See the protocol. A hook may count its calls, so ours do not reach it."""
        self._imposed.add(name)
        self._treated_alone()

        def watched(gradient: Tensor) -> Tensor:
            if self._looking:
                return gradient
            imposed: Tensor = hook(gradient)
            if self._passes is not None:
                self._passes.setdefault(name, []).append(imposed.detach().clone())
            return imposed

        self._inner.on_gradient(name, watched)

    def trace(self, batch: Batch) -> Sequence[OperatorRecord]:
        """See the protocol."""
        records: Sequence[OperatorRecord] = self._inner.trace(batch)
        if not self._observer.settled:
            self._look_at_buffers("trace")
            self._judge(records, batch, "trace")
        return records

    def train_step(self, batch: Batch | Sequence[Batch], *, lr: float | None = None) -> StepMetrics:
        """See the protocol."""
        batches = list(micro_batches(batch))
        self._trace(batches[0], "train_step")
        known = not self._observer.settled and self._observer.steps < _STEPS
        before = micros = None
        if known:
            with self._judging("train_step"):
                micros = [self._micro(one) for one in batches]
                before = self._state()
        self._passes = {} if self._imposed and known else None
        metrics: StepMetrics = self._inner.train_step(batch, lr=lr)
        self._version += 1
        if self._life is not None and self._affordable(tensors=3):  # with both moments
            moments, weights = self._optimizer_state(), self._weights()
            self._life.stepped(batches, lr, metrics, moments, weights)
        if before is not None and micros is not None:
            self._observer.steps += 1
            with self._judging("train_step"):
                micros = self._as_imposed(micros, metrics)
                if len(micros) == self._observer.ranks > 1:
                    self._observer.twin.append(TwinStep.of(metrics, micros, batches))
                step = Step(
                    before, self._state(), metrics, micros, lr, self._observer.hyper, self._dtype
                )
                self._observer.take(judge_step(step), "train_step")
        return metrics

    def load_checkpoint(self, path: Path, provenance: Any) -> int:
        """See the protocol."""
        self._version += 1
        self._treated_alone()
        return int(self._inner.load_checkpoint(path, provenance))

    def run(self, batches: Iterable[Batch], **options: Any) -> RunResult:
        """See the protocol. What its steps compute is not watched; what they start from is."""
        self._look_at_buffers("run")
        self._treated_alone()
        result: RunResult = self._inner.run(batches, **options)
        self._version += 1
        return result

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling | None = None
    ) -> Generated:
        """See the protocol."""
        self._look_at_buffers("generate")
        made: Generated = self._inner.generate(prompt, max_new_tokens, sampling)
        return made

    def _trace(self, batch: Batch, call: str) -> bool:
        """Trace these inputs unless that was done; whether the call is to be judged too."""
        key = (self._version, call, tuple(batch.tokens.shape), int(batch.tokens.sum()))
        observer = self._observer
        if key in self._seen or observer.settled or observer.traces >= _TRACES:
            return False
        self._seen.add(key)
        observer.traces += 1
        self._records = ()
        self._look_at_buffers(call)
        with self._judging(call):
            # A copy: what one path does to its buffers must not reach the next.
            self._records = self._inner.trace(batch)
            if self._life is not None:
                self._life.traced(batch, self._records)
            self._judge(self._records, batch, call)
        return not observer.settled

    def _judge(self, records: Sequence[OperatorRecord], batch: Batch, call: str) -> None:
        with self._judging(call):
            look = judge_trace(
                records, batch.to(self._inner.device), self._asked, self._dtype,
                self._inner.parameters(), self._observer.bounds,
            )  # fmt: skip
            self._observer.take_read(look, records, call)

    def _treated_alone(self) -> None:
        if self._life is not None:
            self._life.went_its_own_way()

    def _look_at_buffers(self, call: str) -> None:
        if not self._observer.settled:
            with self._judging(call):
                found = judge_buffers(
                    buffers_of(self._inner), self._asked, self._observer.bounds.eager
                )
                self._observer.take_buffers(found, call)

    def _weights(self) -> dict[str, Tensor]:
        return {n: p.detach() for n, p in self._inner.parameters().items()}

    def _micro(self, batch: Batch) -> Micro:
        loss, gradients = self._inner.loss_and_gradients(batch)
        return Micro(loss, gradients, batch.targets)

    def _as_imposed(self, micros: list[Micro], metrics: StepMetrics) -> list[Micro]:
        """The micro-batches with the gradients that the falsifier's hooks put in their place.

        A hook sees what is added up, and so each micro-batch's share of the whole.
        """
        passes, self._passes = self._passes, None
        if not passes:
            return micros
        if any(len(found) != len(micros) for found in passes.values()):
            raise ValueError("another number of backward passes than micro-batches")
        targets = sum(micro.targets for micro in micros)
        return [
            Micro(
                metrics.train_loss,
                {
                    n: passes[n][i].double() * (targets / micro.targets) if n in passes else g
                    for n, g in micro.gradients.items()
                },
                micro.targets,
            )
            for i, micro in enumerate(micros)
        ]

    def _state(self) -> State:
        weights = {n: p.detach().clone() for n, p in self._inner.parameters().items()}
        moments = {
            n: Moments(m.exp_avg.clone(), m.exp_avg_sq.clone(), m.step)
            for n, m in self._optimizer_state().items()
        }
        return State(weights, moments)

    def _optimizer_state(self) -> Mapping[str, Moments]:
        try:
            state: Mapping[str, Moments] = self._inner.optimizer_state()
        except (NotSupported, KeyError):
            return {}  # before the first step there may be none
        return state

    def _judging(self, call: str) -> _Judging:
        return _Judging(self, call)


class _Judging:
    """A look that fails is a note: the falsifier must go on as if nobody looked."""

    def __init__(self, instance: ObservedInstance, call: str) -> None:
        self._instance, self._observer, self._call = instance, instance._observer, call

    def __enter__(self) -> None:
        self._instance._looking = True

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> bool:
        self._instance._looking = False
        if not isinstance(error, Exception):
            return False
        said = f"{self._call} was not looked at: {type(error).__name__}: {str(error)[:200]}"
        self._observer.notes[said] = None
        return True
