"""The float64 oracle: model, loss, gradients, optimizer and schedule in plain torch.

It exists to judge trainers, so it shares no table, default or weight mapping with any of them:
it imports torch and numpy (and gguf, in one file), and nothing else of this repository. It is
written to be read, not to be fast; automatic differentiation supplies every gradient.
"""
