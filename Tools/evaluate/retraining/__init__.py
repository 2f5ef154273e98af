"""Retraining experiments of our own: tasks, many models at once, what is recorded, asked and told of them."""
