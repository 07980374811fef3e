"""Model names, building and inference."""
