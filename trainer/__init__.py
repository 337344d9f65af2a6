"""The bundled trainer: pre-training of Llama-family decoders on a CPU, one GPU or several.

errors, config, device                what can go wrong, what a model is, where it runs (no torch)
model/                                the decoder, one operator a file; a key/value cache
batch, loss, optimizer, gradients,
schedule, precision, pending, trainer one optimizer step
execution, step_graph, kernels/       how a step is made fast, or reproducible
weights/, tokenizer                   files: APR v2, safetensors, GGUF, and their vocabularies
corpus/                               text to shards to batches
checkpoint/                           all the state of a run, to and from a file
run/                                  a run: pre-flight, loop, guards, log, epochs, signals
parallel/                             several processes
build, generate                       what the commands build
commands/, cli                        `aprtrain`, or `python -m trainer`
"""
