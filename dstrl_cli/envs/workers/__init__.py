"""Worker processes that step environments, and the memory that they share."""
