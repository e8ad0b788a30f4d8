"""Ports of this machine that tests take for servers of their own."""

import random
import socket

# below what Linux hands to outgoing connections: one of those could take the port before its server does
_PORTS = range(10_000, 16_000)


def free_port() -> int:
    """A port that nobody has taken, nor the one after it: `up` takes both."""
    drawn = random.SystemRandom().sample(_PORTS, 100)
    return next(port for port in drawn if _free(port) and _free(port + 1))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
