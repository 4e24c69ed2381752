"""What every store promises, checked on each back end."""
