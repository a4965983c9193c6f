"""The room of plugin."""
