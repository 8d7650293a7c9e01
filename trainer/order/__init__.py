"""Which sample is trained when: a pure function of seed, source names and shards (contracts, section 7).

`batch_order` gives the samples of batch b. It is made of `phases` (what changes during a run), `mixture_schedule` and
`mixture` (how many samples of each source, and in which turn), `source_order` and `shard_window` (which row of which
shard each sample reads), on `shard_table` (the columns of shards) and `permutation` (the random bijection).
"""
