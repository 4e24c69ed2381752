"""The product as a user runs it."""
