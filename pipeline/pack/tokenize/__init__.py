"""The dataset's tokenizer, and texts to token ids.

In reading order:
    tokenizer.py       which tokenizer a dataset has: loaded or trained at generation 1, then kept
    sample.py          the texts that one is trained on
    train_bpe.py       training a byte-level BPE
    tokenizer_file.py  a tokenizer.json: loaded so that no text yields a special token, and described
    encoder.py         texts to ids, by fastokens (byte_level.py) or by the tokenizers library
Public: `encoder.Encoder`, `tokenizer.resolve_tokenizer`, `train_bpe.train_bpe`, `tokenizer_file.load_tokenizer`.
"""
