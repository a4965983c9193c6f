"""The sending half of a store in PostgreSQL."""
