import stat

import pytest
import zmq

from serl_suite.wire.endpoint import AddressError, PortInUse, bind_router, connect_dealer, is_loopback
from serl_suite.wire.keys import KeysError, client_keys, list_keys, make_keys, server_keys


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(0)


def test_keys_are_made_listed_and_loaded(tmp_path):
    made = make_keys("learner", tmp_path)
    make_keys("actor", tmp_path)
    assert stat.S_IMODE((tmp_path / "learner.secret").stat().st_mode) == 0o600
    assert [(info.name, info.has_secret) for info in list_keys(tmp_path)] == [
        ("actor", True),
        ("learner", True),
    ]
    server, client = server_keys(folder=tmp_path), client_keys(folder=tmp_path)
    assert server.own.public == client.server == made.public.encode()
    assert server.clients == {client.own.public}


def test_what_is_missing_names_the_command(tmp_path):
    with pytest.raises(KeysError, match="serl keys make actor"):
        server_keys(folder=tmp_path)
    with pytest.raises(KeysError, match="serl keys make learner"):
        client_keys(folder=tmp_path)
    make_keys("actor", tmp_path)
    with pytest.raises(KeysError, match="serl keys make learner"):
        server_keys(folder=tmp_path)
    with pytest.raises(KeysError, match="exists"):
        make_keys("actor", tmp_path)
    with pytest.raises(KeysError, match="no key name"):
        make_keys("../actor", tmp_path)


def test_secrets_open_to_others_and_damaged_keys_are_refused(tmp_path):
    make_keys("actor", tmp_path)
    make_keys("learner", tmp_path)
    (tmp_path / "actor.secret").chmod(0o644)
    with pytest.raises(KeysError, match="chmod 600"):
        client_keys(folder=tmp_path)
    (tmp_path / "actor.secret").chmod(0o600)
    (tmp_path / "actor.secret").write_text("nonsense")
    with pytest.raises(KeysError, match="no CURVE key"):
        client_keys(folder=tmp_path)
    (tmp_path / "actor.secret").write_bytes((tmp_path / "learner.secret").read_bytes())
    with pytest.raises(KeysError, match="no pair"):
        client_keys(folder=tmp_path)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.3.2.1:0", True),
        ("tcp://localhost:5555", True),
        ("tcp://[::1]:5555", True),
        ("ipc:///tmp/x", True),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://*:5555", False),
        ("tcp://192.168.1.5:5555", False),
        ("tcp://gpu-box:5555", False),
    ],
)
def test_loopback(address, expected):
    assert is_loopback(address) is expected


@pytest.mark.parametrize(
    "address", ["127.0.0.1:5555", "tcp://127.0.0.1", "tcp://:5", "udp://1.2.3.4:5", "tcp://h:99999"]
)
def test_no_address(address):
    with pytest.raises(AddressError, match="HOST:PORT"):
        is_loopback(address)


@pytest.mark.parametrize("address", ["tcp://*:0", "tcp://0.0.0.0:0"])
def test_open_addresses_without_keys_are_refused(context, address):
    with pytest.raises(AddressError, match="serl keys make learner"):
        bind_router(context, address, None, 1000)
    with pytest.raises(AddressError, match="serl keys make actor"):
        connect_dealer(context, "tcp://192.168.1.5:5555", None, 1000)


def test_a_port_in_use_and_a_foreign_address_are_named(context):
    socket, _ = bind_router(context, "tcp://127.0.0.1:0", None, 1000)
    with pytest.raises(PortInUse, match="another process"):
        bind_router(context, socket.getsockopt_string(zmq.LAST_ENDPOINT), None, 1000)
    with pytest.raises(AddressError, match="address of this machine"):
        bind_router(context, "tcp://127.0.0.1.nowhere.invalid:5555", _keys(), 1000)


def _keys():
    from serl_suite.wire.keys import KeyPair, ServerKeys

    return ServerKeys(KeyPair(*zmq.curve_keypair()), frozenset())
