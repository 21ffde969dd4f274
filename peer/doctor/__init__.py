"""Looks a peer over: what is wrong with its machine, its line or settings, and what mends it."""
