"""The monitor runner: the page of a node in a process of its own. Killing it at any moment loses nothing.

Owns the process: its signals, its end. Where `run:` does not name it, the server serves the page as well.
"""

import logging
from pathlib import Path

from dropr_core.angel.heartbeat import Heartbeat, RecycleLimits
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import NodeConfig
from dropr_core.errors import ConfigError
from dropr_core.monitor.host import Guest
from dropr_core.processes.mainloop import MainLoop
from dropr_core.system.exit_codes import Exit


def run(config: NodeConfig, *, path: Path | None = None, heart: Heartbeat | None = None) -> int:  # noqa: ARG001
    """Serve the page until told to stop. Returns an exit code.

    SIGHUP asks for a fresh start, so that everything in the file counts. Raises Unreachable if it cannot listen.
    """
    if not config.monitor.listen:
        raise ConfigError([f"node {config.node}: `monitor:` listens nowhere, so there is no page to serve"])
    heart = heart or Heartbeat.from_environment()
    log = logging.getLogger("dropr.monitor")
    with Runtime.open(config) as runtime, MainLoop(heart) as loop:
        guest = Guest(runtime, log)
        try:
            guest.open()
            heart.ready()
            recycling = RecycleLimits(None, config.angel.max_memory)
            while not loop.stopping:
                if reason := "told to reload" if loop.reload else recycling.due(0):
                    log.info("asks for a fresh start: %s", reason)
                    return Exit.RECYCLE
                loop.sleep(None)
        finally:
            guest.close()
        log.info("monitor stopped")
        return Exit.OK
