"""What a run looks like from outside: status, metrics, logs."""
