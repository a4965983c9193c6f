"""The sending half: a log for each lane, in one SQLite file. Knows neither connections nor files."""
