"""A training run: from the checks before it to the files it leaves behind.

options, modes                  what a run is asked to do, and the defaults of a mode (no torch)
preflight                       every check that can be made before anything is built or written
launch                          from the checked plan to a trainer, a record, and a session
session                         epochs around the loop: validation, guards, checkpoints, signals
loop, metrics, gpu_sampler      optimizer steps and their log
guards, signals, memory         what ends a run
residency, determinism          what proves where and how it ran
progress, flops, curves, files  what a person sees, and what stays in the run directory
"""
