"""The two processes: a supervisor that never loads the model and a worker that does."""
