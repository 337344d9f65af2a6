"""Training state in files: what a run needs to go on, bit for bit, after it was stopped.

`state` names the tensors, `capture` copies them to the host without stopping the GPU, `writer`
puts them on the disk in the background, `run_directory` finds the newest good file again, and
`restore` puts it back into a trainer. A checkpoint is one APR v2 file: weights and AdamW moments as
tensors, everything else as the metadata object ``training``.
"""
