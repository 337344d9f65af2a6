"""Text to a dataset of token shards, and the dataset to batches.

sources, documents, split, plan   which files become documents, and on which side of the split
workers, journal, progress,
preparation                       `aprtrain prepare`: parallel, resumable, the same bytes every time
manifest, shards,
tokenizer_identity                what lies in a dataset's folder, and how it is checked
permutation, sampler              which window a step and a rank train on: a pure function
corpus, heldout, synthetic        batches
steps, prefetch, pinning          batches in time for the GPU
"""
