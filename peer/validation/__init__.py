"""Elected validators: tickets, committees, scores, verdicts, all of it pure."""
