"""The files of a run: its folder, its policies, where it came from. No training, no torch."""
