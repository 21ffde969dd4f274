"""A whole swarm on one machine: real peers as processes, injected faults, and a verdict."""
