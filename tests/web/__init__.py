"""The HTTP plane."""
