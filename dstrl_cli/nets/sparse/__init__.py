"""The sparse engine: only active connections exist (CPU)."""
