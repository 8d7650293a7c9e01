"""What a person sees of a run: `metrics` is its record, `history` sums it up, `html` and `charts` draw the page."""
