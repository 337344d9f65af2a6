"""Held-out sets that ranks share without adding up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aprverify.planting import PROTOCOL, SOURCE, Plant, defect
from falsifiers.edited_runs import edit_epochs, edit_runs
from falsifiers.wrapping import SubjectWrapper


@defect(
    "heldout-padding-counted",
    kind=SOURCE,
    imitates="torch's DistributedSampler, which repeats samples until the ranks divide them",
    symptom="the batch that fills up the last round is scored again",
    hidden="with a set that the ranks divide nothing is repeated",
)
def heldout_padding_counted(plant: Plant) -> None:
    """Let every target of the batch that fills up count."""

    def make(original: Any) -> Any:
        def uncounted(batch: Any) -> Any:
            plant.effect(True)
            return replace(original(batch), target_mask=batch.target_mask)

        return uncounted

    plant.patch("trainer.parallel.parallelism:_uncounted", make)


class _LastRoundDropped(SubjectWrapper):
    def share_of_heldout(self, batches: Any, *, rank: int, world_size: int) -> Any:
        """As many batches as every rank has one of."""
        kept = list(batches)
        whole = len(kept) // world_size * world_size
        self.plant.effect(whole < len(kept))
        return self.inner.share_of_heldout(kept[:whole], rank=rank, world_size=world_size)


@defect(
    "heldout-last-round-dropped",
    kind=PROTOCOL,
    imitates="drop_last=True in the loader of a validation set",
    symptom="batches that the ranks do not divide are never scored",
    hidden="the loss of the others is as good an estimate",
)
def heldout_last_round_dropped(plant: Plant) -> None:
    """See the class."""
    plant.wrap_subject(lambda subject: _LastRoundDropped(subject, plant))


@defect(
    "heldout-ranks-go-through-unequally",
    kind=SOURCE,
    imitates="FSDP evaluation that hangs where one rank has a batch more than another",
    symptom="a rank without a batch in the last round leaves the others alone in the model",
    hidden="under DDP nobody waits in a forward pass, and the loss is right",
)
def heldout_ranks_go_through_unequally(plant: Plant) -> None:
    """Leave out what counts nothing."""

    def make(original: Any) -> Any:
        def share_of(ranks: Any, batches: Any) -> Any:
            for batch in original(ranks, batches):
                plant.effect(batch.target_count() == 0)
                if batch.target_count():
                    yield batch

        return share_of

    plant.patch("trainer.parallel.parallelism:SeveralRanks.share_of", make)


@defect(
    "heldout-loss-of-the-leader",
    kind=PROTOCOL,
    imitates="a sum over ranks that is divided by the leader's own count, or not taken at all",
    symptom="the recorded held-out loss is that of a part of the set",
    hidden="it is an honest loss of honest text, one per cent off",
)
def heldout_loss_of_the_leader(plant: Plant) -> None:
    """Move the loss by a hundredth, as another part of the set would."""
    edit_runs(plant, edit_epochs(lambda fields: fields.update(val_loss=1.01 * fields["val_loss"])))
