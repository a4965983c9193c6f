"""The figures, a file each (or a few that share a run); `bench.registry` finds them by their names."""
