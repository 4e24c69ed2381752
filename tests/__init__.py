"""Tests: each states a promise."""
