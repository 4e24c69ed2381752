"""Protocols: what the inside needs from storage, channels and the clock, whichever stands behind them."""
