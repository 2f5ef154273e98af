"""Collections of stores on a Ray cluster."""
