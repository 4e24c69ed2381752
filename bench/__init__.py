"""Measurements. Figures are ratios within one run: these machines are shared and noisy."""
