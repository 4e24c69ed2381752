"""The driver, against real servers."""
