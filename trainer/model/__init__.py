"""The decoder, one operator a file. Every operator is a module, so that it can be watched from
outside with forward and backward hooks.

Master parameters are float32; activations are in the compute dtype, which each operator takes from
its input. Shapes: B batch, T positions, H heads, K key/value heads, D head_dim, C hidden_size.
"""
