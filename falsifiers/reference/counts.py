"""How many parameters a configuration has, in closed form."""

from __future__ import annotations

from .model import Configuration


def stored_parameters(config: Configuration) -> int:
    """Parameters that exist in memory: a tied head is the embedding and counts once."""
    head = 0 if config["tie_word_embeddings"] else _embedding(config)
    return _body(config) + _embedding(config) + head


def nominal_parameters(config: Configuration) -> int:
    """Parameters with the head counted beside the embedding, tied or not."""
    return _body(config) + 2 * _embedding(config)


def _embedding(config: Configuration) -> int:
    return int(config["vocab_size"]) * int(config["hidden_size"])


def _body(config: Configuration) -> int:
    hidden = int(config["hidden_size"])
    query = int(config["num_heads"]) * int(config["head_dim"])
    key_value = int(config["num_kv_heads"]) * int(config["head_dim"])
    biases = query + 2 * key_value if config["attention_bias"] else 0
    attention = hidden * (2 * query + 2 * key_value) + biases
    feed_forward = 3 * hidden * int(config["intermediate_size"])
    norms = 2 * hidden
    return int(config["num_layers"]) * (attention + feed_forward + norms) + hidden
