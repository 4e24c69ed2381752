"""Channels: signatures, shapes, refusals."""
