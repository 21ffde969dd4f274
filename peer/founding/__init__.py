"""Founding a run and verifying one: what a founder does before any peer trains."""
