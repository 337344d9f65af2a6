"""One run on several processes, each with its own device and its own share of every batch.

`world` reads who this process is, `process_group` connects it to the others, `ranks` lets their
hosts agree. How the work of a step is shared is a `Parallelism`: none (`single`), every rank a full
copy (`replicated`, DDP), or every rank a part of each weight (`sharded`, FSDP2). Ranks add up
gradients of (sum of own token losses) / (targets of all ranks), so k ranks take the step that one
process takes with k times the micro-batches; with two ranks and float32, bit for bit.

Exit codes: each rank has the one of its status, as alone. torchrun's own is 1 whenever a rank's is
not 0, and its report names that of the first rank to end; outcome.json has the run's. Of a signal
to torchrun every rank hears, and has 30 s to finish its step and write the checkpoint.
"""
