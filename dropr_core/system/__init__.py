"""The room of system."""
