"""The receiving side of some branches, each mounted at a path of its own in one web server."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

import dropr_core as dropr


def main() -> None:
    """Serve until told to stop."""
    first, last, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    host, port = address.split(":")
    names = [f"branch-{number:03}" for number in range(first, last + 1)]
    nodes = {name: dropr.open(f"branches/{name}.yaml") for name in names}
    app = Starlette(routes=[Mount(f"/{name}", app=dropr.asgi(node)) for name, node in nodes.items()])
    uvicorn.run(app, host=host, port=int(port), log_level="warning", timeout_graceful_shutdown=2)
    for node in nodes.values():
        node.close()


if __name__ == "__main__":
    main()
