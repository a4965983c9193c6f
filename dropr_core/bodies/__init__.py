"""The room of bodies."""
