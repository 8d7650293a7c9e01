"""Runtime: where pipelines run and what the user hears of it; nothing here changes a dataset.

`options` picks the runner from Beam's options, `worker` is a local worker process, `cluster_jobs` keeps jobs of a
cluster on record, `cores` counts; `progress` reports how far a stage is, `interrupt` ends on Ctrl-C with one line,
`errors` makes one message of a failure, `quiet` imports Beam without its noise.
Public: `options.runner`, `progress.ProgressLine`, `progress.Reporter`, `errors.user_error`.
"""
