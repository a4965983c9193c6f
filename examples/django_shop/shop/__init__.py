"""The application, and the project."""
