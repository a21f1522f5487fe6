"""What a person sees: progress, plans and results in words."""
