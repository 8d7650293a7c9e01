"""How good a model is: `perplexity` (validation loss and bits per byte, a source or a file), `sampling` (text)."""
