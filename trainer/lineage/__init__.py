"""From a step to its documents and back: `document_steps`, on the dataset's index and ledgers."""
