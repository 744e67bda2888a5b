"""What a run will take on accelerators that are not here: compiled ahead of time, never run."""
