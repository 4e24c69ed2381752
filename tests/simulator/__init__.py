"""The stand-in for Meta: its protocol, and its faults."""
