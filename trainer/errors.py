"""Every way in which the trainer refuses or stops, with the exit code that tells a script so."""

from __future__ import annotations

from typing import ClassVar

EXIT_CODES = {
    "OK": 0,
    "EARLY_STOP": 0,
    "USAGE": 2,
    "CONFIGURATION": 3,
    "ARCHITECTURE": 4,
    "WEIGHTS": 5,
    "TOKENIZER": 6,
    "DATA": 7,
    "CHECKPOINT": 8,
    "OUT_OF_MEMORY": 9,
    "DIVERGENCE": 10,
    "NUMERICAL_INSTABILITY": 11,
    "THROUGHPUT_OUT_OF_RANGE": 12,
    "STREAM_EXHAUSTED": 13,
    "DEVICE_UNAVAILABLE": 14,
    "GPU_RESIDENCY_PROOF_FAILED": 15,
    "PEER_LOST": 16,
    "INTERRUPTED": 130,
    "TERMINATED": 143,
}
"""Exit code by status. 130 and 143 are the shell's own for a process ended by Ctrl-C or SIGTERM.

EARLY_STOP is a run that ended as it should, before its planned number of steps."""


class TrainerError(Exception):
    """Base of every refusal. `str()` is one line that says what, where and what to do."""

    status: ClassVar[str]

    @property
    def exit_code(self) -> int:
        """Exit code of the command line for this status."""
        return EXIT_CODES[self.status]


class UsageError(TrainerError):
    """The command line, or a device specification, is malformed."""

    status = "USAGE"


class ConfigurationError(TrainerError):
    """Settings that are well-formed contradict each other or the data."""

    status = "CONFIGURATION"


class ArchitectureError(TrainerError):
    """A model configuration is impossible, of another family, or not the one that was agreed."""

    status = "ARCHITECTURE"


class WeightsError(TrainerError):
    """A weight file is missing, damaged, incomplete, or does not fit the model."""

    status = "WEIGHTS"


class NewerWeights(WeightsError):
    """A weight file has a later version of its format."""


class TokenizerError(TrainerError):
    """A tokenizer cannot be read, or its vocabulary does not fit the model."""

    status = "TOKENIZER"


class DataError(TrainerError):
    """A dataset is missing, damaged, not the one that was agreed, or too small."""

    status = "DATA"


class CheckpointError(TrainerError):
    """A checkpoint is damaged, of another run or version, or cannot be written."""

    status = "CHECKPOINT"


class NewerCheckpoint(CheckpointError):
    """A checkpoint was written by a later version of the trainer."""


class OutOfMemory(TrainerError):
    """The device has no memory left for what the settings need."""

    status = "OUT_OF_MEMORY"


class Divergence(TrainerError):
    """The held-out loss is above what a run that learns can have."""

    status = "DIVERGENCE"


class NumericalInstability(TrainerError):
    """The loss or the gradient norm of a step is NaN or infinite."""

    status = "NUMERICAL_INSTABILITY"


class ThroughputOutOfRange(TrainerError):
    """Training is slower than the least that was asked for."""

    status = "THROUGHPUT_OUT_OF_RANGE"


class StreamExhausted(TrainerError):
    """The batches ended before the planned number of optimizer steps."""

    status = "STREAM_EXHAUSTED"


class DeviceUnavailable(TrainerError):
    """The device that was asked for is not there."""

    status = "DEVICE_UNAVAILABLE"


class ResidencyProofFailed(TrainerError):
    """Weights or optimizer state are not on the GPU, or the driver sees no memory in use."""

    status = "GPU_RESIDENCY_PROOF_FAILED"


class PeerLost(TrainerError):
    """Another process of the run has ended; why, its own message says."""

    status = "PEER_LOST"


class Interrupted(TrainerError):
    """Ctrl-C: the step was finished and a checkpoint written."""

    status = "INTERRUPTED"


class Terminated(TrainerError):
    """SIGTERM: the step was finished and a checkpoint written."""

    status = "TERMINATED"
