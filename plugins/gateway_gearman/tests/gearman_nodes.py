"""Real nodes whose gateway speaks Gearman."""

from support.nodes import eventually

from dropr_core.system.presence import living


def build(road, *names, **fields):
    """Nodes that know each other; ``fields``: more of a node's file, by its name."""
    more = {name: {"gateways": {"gearman": {"listen": "tcp://127.0.0.1:0"}}, **fields.get(name, {})} for name in names}
    return road.build(*names, **more)


def start(place):
    """Start its gateway; returns the process."""
    process = place.run("gateway")
    place.port = port_of(place)
    return process


def port_of(place):
    """Where its gateway listens now."""

    def urls():
        return [url for one in living(place.data / "run", "gateway") for url in one["urls"]["gearman"]]

    (url,) = eventually(urls, what="the gateway has announced itself")
    return int(url.rpartition(":")[2])
