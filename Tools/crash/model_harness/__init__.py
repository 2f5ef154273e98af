"""Kills the program at random moments and compares what is left with a model of the store."""
