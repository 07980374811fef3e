"""What happens to a run when things break."""
