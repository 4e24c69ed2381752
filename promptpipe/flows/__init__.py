"""Flows: kinds of conversation. They decide; they never write, send or schedule."""
