"""What `dropr fsck` does with a store in SQLite: pages, tables, and saving what can be read."""
