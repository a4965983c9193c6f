"""The receiving half: a work queue for each channel, in one SQLite file. Knows neither connections nor files."""
