"""What `celery -A` imports: made at import, because Celery wants it so."""

from bench.peers.celery_redis import make_app

app = make_app()
