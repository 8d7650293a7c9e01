"""From shards to batches of tokens on a rank.

`train_split` opens what a run reads of a dataset, `shard_files` finds its files. `token_stream` is the way in; it
yields a `batch`, made ahead of time by `prefetch`, from a thread or from worker processes (`reader_process`), each a
`batch_reader` over `shard_rows`. Remote shards come through a bounded `cache`,
which one `shard_fetcher` a node fills within its `cache_quota`. `packed_row_counts` counts what a manifest does not.
"""
