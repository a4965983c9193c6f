"""The receiving half of a store in PostgreSQL."""
