"""The trunk and everything built on it."""
