"""Channels: providers that carry messages."""
