"""The two back ends of `ports.store`, and what they share."""
