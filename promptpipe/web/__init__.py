"""The HTTP plane: webhooks and health."""
