"""Conversations, as the people in them see them."""
