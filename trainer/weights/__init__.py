"""Initial weights from files that others wrote: Hugging Face safetensors, and GGUF.

`architecture.read_architecture` says what a file holds, `load.load_init_tensors` reads its tensors
under their Hugging Face names in float32, and `populate.populate` puts them into a model, all of
them or none.
"""
