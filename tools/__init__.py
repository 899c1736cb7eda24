"""Checks that belong to the repository, not to the program."""
