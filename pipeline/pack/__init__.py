"""Pack: what is kept, as token shards with a ledger and indexes, committed as the dataset's next generation.

In reading order:
    pack.py              the way through, from `pack(job, measured, decided, previous)` to the commit
    groups.py            which parts are packed together: the plan that every worker reads
    tokenize/            the tokenizer, and texts to token ids
    transforms.py        the steps as one Beam pipeline; receipts.py: what they hand on
    encode.py            a group to its train shards (shards.py); validation.py: a source's groups to validation shards
    reuse_shards.py      rows that an earlier generation encoded; shard_numbering.py: the table of all shards
    ledger.py, index.py  one row a record read, and where to find it
    generation.py        the manifest; verify/ checks one from the dataset alone
Public: `pack.pack`, `verify.verify.verify`.
"""
