"""The result backend of Celery: results are kept where they are wanted, and travel there as messages."""
