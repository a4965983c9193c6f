"""What the `dramatiq` command imports: made at import, because Dramatiq wants it so."""

from bench.peers.dramatiq_redis import make_actor

nothing = make_actor()
