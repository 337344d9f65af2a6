"""Weight files: Hugging Face safetensors, GGUF and APR v2, read and written.

`architecture.read_architecture` says what a file holds, `load.load_init_tensors` reads its tensors
under their Hugging Face names in float32, and `populate.populate` puts them into a model, all of
them or none. `apr_writer.write_apr` writes checkpoints; `export` writes a model for other programs.
Whatever writes a file does so through `durable`.
"""
