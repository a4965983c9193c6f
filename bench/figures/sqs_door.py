"""The SQS door beside moto's server, by the same client.

Owns the comparison; the client and moto stand in `bench/peers/moto_sqs.py`. Must not know SQS.
"""

from bench.figure import Figure, Run, Skipped, at_least
from bench.figures.others import taken
from bench.nodes import Process, free_port, has_role, node_file
from bench.peers import moto_sqs


def measure(run: Run) -> None:
    """Ours durable, with signatures checked; theirs in memory."""
    if why := moto_sqs.missing():
        raise Skipped(why)
    rounds, messages = 3, run.count(100, 10)
    theirs = {one.what: one.value for one in taken(run, "moto_sqs", messages, rounds)}
    for storage in run.storages:
        url = f"http://127.0.0.1:{free_port()}"
        gateways = {"sqs": {"listen": url, "credentials": {moto_sqs.KEY: moto_sqs.SECRET}}}
        file = node_file(run, storage, gateways=gateways)
        gateway = Process("gateway", has_role("gateway", file), file.parent / "gateway.log")
        try:
            gateway.await_ready("listens on")
            for name, client in moto_sqs.clients(url):
                for what, rate, _ in moto_sqs.rates(client, messages, rounds):
                    named = f"{what}, {name}"
                    run.read(f"{named}, {storage}", "/s", rate)
                    run.read(f"{named}, {storage}: door ÷ moto's server", "×", rate / theirs[named], at_least(5))
        finally:
            gateway.stop()


FIGURES = (
    Figure("sqs", "sqs", "SQS door (durable) ÷ moto's server (in memory), the same clients", "≥ 5", "",
           "Send, and receive + delete, one by one and in tens; signatures are checked here and not there. boto3's own "
           "work, 2 ms a call, is the floor of both; a lean client shows the servers.",
           measure, 120, only_if_named=True),
)  # fmt: skip
