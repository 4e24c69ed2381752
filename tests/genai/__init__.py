"""Text generation against a model of the test's on loopback."""
