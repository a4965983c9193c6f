"""The room of processes."""
