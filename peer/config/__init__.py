"""A volunteer's own choices: where they are kept and which layer each came from."""
