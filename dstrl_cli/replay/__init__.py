"""The replay buffer, its layouts, and what is sampled from it."""
