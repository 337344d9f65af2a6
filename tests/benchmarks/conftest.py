"""What tests of the comparison need loaded before pytest collects them."""

from __future__ import annotations

import gguf
import safetensors
import tokenizers
import torch
import transformers

import trainer

LOADED_FIRST = (gguf, safetensors, tokenizers, torch, trainer, transformers)
"""While pytest collects, the plugin refuses that the suite loads these: they are loaded here."""

torch.set_num_threads(1)
