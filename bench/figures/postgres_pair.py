"""End to end over PostgreSQL: two nodes, each in a schema of its own of one server, on the same machine."""

from bench.figure import Figure, Run, Skipped, at_least
from bench.figures.carrying import rounds_of
from bench.nodes import Pair
from dropr_core.demo.postgres import Server
from dropr_core.errors import UsageError


def measure(run: Run) -> None:
    """As P6, with the server that both nodes use among what shares the machine."""
    try:
        server = Server()
    except UsageError as error:
        raise Skipped(str(error)) from error
    try:
        storages = [{"use": "postgres", "url": server.url(), "schema": name} for name in ("bench_shop", "bench_store")]
        count = run.count(60_000, 2000) // 1000 * 1000
        shop, store = ({"storage": storage} for storage in storages)
        with Pair(run.directory("pair"), shop=shop, store=store) as pair:
            rates = rounds_of(run, pair, count, rounds=run.rounds, label="postgres, curl")
        run.read("postgres, curl", "/s", rates, at_least(30_000))
    finally:
        server.close()


FIGURES = (
    Figure("postgres-pair", "postgres-pair", "end to end, two nodes over PostgreSQL, durable on both, batches",
           "≥ 30,000 /s", "as P6",
           "As P6; both nodes keep their halves in one server on the same two cores.", measure, 60, only_if_named=True),
)  # fmt: skip
