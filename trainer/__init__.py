"""The bundled trainer: pre-training of Llama-family decoders on one CPU or CUDA device.

errors, config, device          what can go wrong, what a model is, where it runs (no torch)
model/                          the decoder, one operator a file
batch, loss, optimizer,
gradients, schedule, trainer    one optimizer step
weights/                        initial weights from safetensors and GGUF files
build                           what the pretrain command trains, and the checks before it
tokenizer, data                 text to token batches
metrics, gpu_sampler, loop      a run and its log
cli                             `aprtrain`, or `python -m trainer`
"""
