"""Long-lived entry points to the swarm: they train nothing and serve any number of runs."""
