"""The room of fsck."""
