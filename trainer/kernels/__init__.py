"""Triton kernels, for the two passes over memory that PyTorch makes in more trips than needed.

Imported only where a CUDA device is used; the modules that use them hold the same computation in
plain torch for the CPU.
"""
