"""Runner, hooks, optimizers and schedules."""
