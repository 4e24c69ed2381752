"""The parts of a running service."""
