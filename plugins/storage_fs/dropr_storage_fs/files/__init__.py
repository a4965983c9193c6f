"""Files of a half: bytes of records, segments, logs, and the words that all processes share. Knows no message."""
