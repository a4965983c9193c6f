"""The STOMP door beside ActiveMQ, by the same client.

Owns the comparison; the client and ActiveMQ stand in `bench/peers/activemq_stomp.py`. Must not know STOMP.
"""

from bench.figure import Figure, Run, Skipped, at_least
from bench.figures.others import taken
from bench.nodes import Process, free_port, has_role, node_file
from bench.peers import activemq_stomp


def measure(run: Run) -> None:
    """Both durable."""
    if why := activemq_stomp.missing():
        raise Skipped(why)
    rounds, messages = 3, run.count(200, 20)
    theirs = {one.what: one.value for one in taken(run, "activemq_stomp", messages, rounds)}
    for storage in run.storages:
        port = free_port()
        gateways = {"stomp": {"listen": f"tcp://127.0.0.1:{port}"}}
        file = node_file(run, storage, gateways=gateways)
        gateway = Process("gateway", has_role("gateway", file), file.parent / "gateway.log")
        try:
            gateway.await_ready("listens on")
            client = activemq_stomp.Client(port)
            for what, rate, _ in activemq_stomp.rates(client, messages, rounds):
                run.read(f"{what}, {storage}", "/s", rate)
                run.read(f"{what}, {storage}: door ÷ ActiveMQ", "×", rate / theirs[what], at_least(1))
            client.close()
        finally:
            gateway.stop()


FIGURES = (
    Figure("stomp", "stomp", "STOMP door ÷ ActiveMQ (KahaDB), both durable, by the same socket", "≥ 1", "",
           "SEND with receipt, and MESSAGE + ACK with receipt, one by one on one connection.",
           measure, 120, only_if_named=True),
)  # fmt: skip
