"""A broker and a result backend for Celery, and for whatever else speaks Kombu.

Importing it makes the scheme ``dropr://`` known to Kombu; Celery does that by itself (scheme.py).
"""

from dropr_kombu.scheme import make_known as _make_known

_make_known()
