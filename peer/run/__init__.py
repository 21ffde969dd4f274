"""What the peers of a run must agree on: the manifest, its hash, and all that it names by hash."""
