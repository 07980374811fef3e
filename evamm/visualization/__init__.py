"""Pictures: predictions, contact sheets, features and attention. Nothing here loads a model."""
