"""The model: a decoder-only transformer that knows nothing of parallelism.

`transformer` is the whole of it, of `attention`, `rotary` and `cross_entropy`. `huggingface` reads and writes the
folders that `transformers` opens; `start_from` says what a run may change of a model whose weights it starts from.
"""
