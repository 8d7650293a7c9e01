"""What happens during a run.

`measurements` and `throughput` measure on all ranks; `run_logger` writes on one, to the terminal and to its sinks
(`tensorboard` is one); `loss_spikes` judges steps; `watchdog` reports a hang.
"""
