"""What a run will cost: `run_estimate` (time, energy, data), `memory` (of a device), `accelerators` (what is known)."""
