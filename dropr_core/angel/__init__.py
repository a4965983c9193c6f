"""The room of angel."""
