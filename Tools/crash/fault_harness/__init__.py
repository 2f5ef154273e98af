"""Crash points, damage, failing calls and hostile surroundings: what the fault harnesses share."""
