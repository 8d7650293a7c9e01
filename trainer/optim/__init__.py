"""What becomes of gradients: `optimizers` (AdamW, or Muon beside it; clipping), `muon`, `lr_schedule`."""
