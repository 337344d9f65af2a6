"""Every way in which the trainer refuses or stops, with the exit code that tells a script so."""

from __future__ import annotations

from typing import ClassVar

EXIT_CODES = {
    "OK": 0,
    "USAGE": 2,
    "CONFIGURATION": 3,
    "ARCHITECTURE": 4,
    "WEIGHTS": 5,
    "TOKENIZER": 6,
    "DIVERGENCE": 10,
    "NUMERICAL_INSTABILITY": 11,
    "THROUGHPUT_OUT_OF_RANGE": 12,
    "STREAM_EXHAUSTED": 13,
    "DEVICE_UNAVAILABLE": 14,
    "GPU_RESIDENCY_PROOF_FAILED": 15,
    "INTERRUPTED": 130,
}
"""Exit code by status. 130 is the shell's own code for a process ended by Ctrl-C."""


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


class TokenizerError(TrainerError):
    """A tokenizer cannot be read, or its vocabulary does not fit the model."""

    status = "TOKENIZER"


class NumericalInstability(TrainerError):
    """The loss or the gradient norm of a step is NaN or infinite."""

    status = "NUMERICAL_INSTABILITY"


class StreamExhausted(TrainerError):
    """The batches ended before the planned number of optimizer steps."""

    status = "STREAM_EXHAUSTED"


class DeviceUnavailable(TrainerError):
    """The device that was asked for is not there."""

    status = "DEVICE_UNAVAILABLE"
