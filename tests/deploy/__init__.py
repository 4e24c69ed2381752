"""How the product is deployed: its image, its compose file, and what their commands do to its data."""
