"""Who a process is, as torchrun's environment tells it."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from trainer.errors import ConfigurationError, PeerLost, UsageError
from trainer.parallel import world as worlds
from trainer.parallel.ranks import peers_missed
from trainer.parallel.world import ALONE, World


def test_without_torchrun_there_is_one_process() -> None:
    """An empty environment, or one with an unrelated RANK, is a world of one."""
    assert worlds.read_world({}) == worlds.read_world({"RANK": "3"}) == ALONE


def test_torchruns_environment_is_read() -> None:
    """Rank 5 of 8 is the second process of its machine."""
    found = worlds.read_world({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"})
    assert found == World(5, 8, 1)
    assert not found.leads and ALONE.leads


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "1"},
        {"WORLD_SIZE": "0", "RANK": "0", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "two", "RANK": "0", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "-1", "LOCAL_RANK": "0"},
    ],
)
def test_an_impossible_environment_is_refused(environment: dict[str, str]) -> None:
    """Incomplete, not numbers, or a rank outside of the world: the values are named."""
    with pytest.raises(UsageError, match=r"WORLD_SIZE=.*torchrun"):
        worlds.read_world(environment)


def test_ddp_is_the_default_of_several_processes() -> None:
    """One process shares nothing, and cannot be asked to."""
    two = World(0, 2, 0)
    assert worlds.choose_parallel(None, two) == "ddp"
    assert worlds.choose_parallel("fsdp", two) == "fsdp"
    assert worlds.choose_parallel(None, ALONE) is None
    with pytest.raises(UsageError, match="torchrun"):
        worlds.choose_parallel("ddp", ALONE)


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuda and auto mean the GPU with the local rank; a numbered one cannot be shared."""
    monkeypatch.setattr(worlds.devices, "visible_cuda_devices", lambda: 2)
    second = World(3, 4, 1)
    assert worlds.resolve_device("cuda", second) == "cuda:1"
    assert worlds.resolve_device("auto", second) == "cuda:1"
    assert worlds.resolve_device("cpu", second) == "cpu"
    assert worlds.resolve_device("cuda:1", ALONE) == "cuda:1"
    with pytest.raises(ConfigurationError, match="cuda:0 names one GPU for 4 processes"):
        worlds.resolve_device("cuda:0", second)


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (
            RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:538] Closed by peer"),
            PeerLost,
        ),
        (dist.DistBackendError("NCCL error"), PeerLost),
        (RuntimeError("shapes do not fit"), RuntimeError),
    ],
)
def test_only_lost_communication_is_a_lost_peer(
    error: RuntimeError, found: type[Exception]
) -> None:
    """Within FSDP's passes a fault of the model's own stays what it is."""
    with pytest.raises(found) as raised, peers_missed():
        raise error
    assert type(raised.value) is found
