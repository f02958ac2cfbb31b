"""Why a learner's address does not answer, as far as this machine can tell."""

import socket
from urllib.parse import urlsplit

__all__ = ["likely_cause"]

PROBE_TIMEOUT_S = 1.0


def likely_cause(address: str, *, has_keys: bool) -> str:
    """Tries a plain connection, and returns in words what that says.

    Args:
        address: tcp://HOST:PORT, from which no learner has answered.
        has_keys: Whether CURVE keys were used.
    """
    parts = urlsplit(address)
    if parts.hostname is None or parts.port is None:
        return "check the address"
    try:
        socket.create_connection((parts.hostname, parts.port), PROBE_TIMEOUT_S).close()
    except ConnectionRefusedError:
        return "nothing listens there (no learner runs yet, or the port is another)"
    except socket.gaierror:
        return f"no machine is called {parts.hostname}"
    except OSError:
        return "that machine does not answer: check the address, the network and its firewall"
    if has_keys:
        return (
            "something listens there but lets this actor not in: learner.public here must be that learner's, "
            "actor.public must lie in its keys folder since before it started, and it must use keys"
        )
    return (
        "something listens there but does not answer: a learner that wants keys (give --keys), or no learner"
    )
