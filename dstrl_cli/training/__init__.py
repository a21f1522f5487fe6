"""Training: one loop for a population, its recorder, and how runs start."""
