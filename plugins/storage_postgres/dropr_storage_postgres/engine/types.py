"""The type of a session as jobs see it. Owns nothing else."""

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]
"""In autocommit, with rows in binary form."""

__all__ = ["Connection"]
