"""One controlling client at a time."""

from hypothesis import given
from hypothesis import strategies as st
from serl_servers.lease import LEASE_S, Lease

CLIENTS = [b"a", b"b", b"c"]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


events = st.lists(
    st.tuples(st.sampled_from(["take", "renew", "release"]), st.sampled_from(CLIENTS), st.floats(0.0, 2.0 * LEASE_S)),
    max_size=40,
)  # fmt: skip


@given(events)
def test_never_two_and_never_after_silence(steps):
    clock = Clock()
    lease = Lease(clock)
    heard: dict[bytes, float] = {}
    """When whoever holds the lease was last heard: what must be the case, kept by other means."""
    for what, client, passed in steps:
        clock.now += passed
        holders = [c for c, at in heard.items() if clock.now - at <= LEASE_S]
        allowed = [c for c in CLIENTS if lease.objection(c) is None]
        assert allowed == holders
        assert (lease.holder is None) == (not holders)
        if what == "take":
            refusal = lease.take(client, client.decode())
            assert (refusal is None) == (holders in ([], [client]))
            if refusal is None:
                heard = {client: clock.now}
        elif what == "renew":
            lease.renew(client)
            if client in holders:
                heard[client] = clock.now
        else:
            assert lease.release(client) == (client in holders)
            if client in holders:
                heard = {}


def test_objections_say_why():
    clock = Clock()
    lease = Lease(clock)
    assert "not taken" in lease.objection(b"a")
    lease.take(b"a", "actor (12)")
    assert "actor (12)" in lease.objection(b"b")
    assert "actor (12)" in lease.take(b"b", "other")
    clock.now += LEASE_S + 0.5
    assert "expired" in lease.objection(b"a")
    assert "1.5 s" in lease.objection(b"a")
