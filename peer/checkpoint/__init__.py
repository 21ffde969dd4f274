"""The global state and this peer's place in the data, on the disk."""
