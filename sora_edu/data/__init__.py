"""The toy world, its judge, and the readers of real data."""
