"""What survives a killed run.

`checkpointer` saves and loads tensors beside the training, `layout` is the folders that it makes and deletes,
`run_state` the handful of numbers beside the tensors, `safe_reader` reads files without running what is in them.
"""
