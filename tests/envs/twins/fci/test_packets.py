"""The layouts: sizes as the real clients have them, fields where they belong, streams cut anywhere."""

import socket
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serl_envs.twins.fci import arm_packets, hand_packets
from serl_envs.twins.fci.command import decode_command
from serl_envs.twins.fci.connection import MAX_REQUEST_BYTES, Connection

numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)


def test_sizes():
    assert arm_packets.STATE.itemsize == 1377
    assert arm_packets.COMMAND.itemsize == 371
    assert (arm_packets.HEADER.size, hand_packets.HEADER.size) == (12, 10)
    assert arm_packets.PAYLOAD_BYTES[arm_packets.ArmCommand.MOVE] == 113
    assert arm_packets.CONNECT_REPLY.size == 3
    assert hand_packets.STATE.size == 23
    assert hand_packets.PAYLOAD_BYTES[hand_packets.HandCommand.GRASP] == 40
    assert hand_packets.PAYLOAD_BYTES[hand_packets.HandCommand.MOVE] == 16


def test_state_fields_lie_where_the_protocol_has_them():
    """Offsets counted by hand from the field table: 8 bytes of id, then 4 bytes a number."""
    offsets = {name: arm_packets.STATE.fields[name][1] for name in arm_packets.STATE.names}
    assert offsets["message_id"] == 0
    assert offsets["O_T_EE"] == 8
    assert offsets["m_ee"] == 8 + 4 * 96
    assert offsets["elbow"] == 8 + 4 * (96 + 26)
    assert offsets["q"] == 8 + 4 * (96 + 26 + 4 + 21)
    assert offsets["motion_generator_mode"] == 1377 - 4 - 1 - 41 - 41 - 2
    assert offsets["robot_mode"] == 1377 - 4 - 1


@given(
    st.integers(0, 2**64 - 1),
    st.lists(numbers, min_size=45, max_size=45),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_command_round_trip(number, values, elbow, motion_finished, torque_finished):
    packet = struct.pack(
        "<Q38d??7d?", number, *values[:38], elbow, motion_finished, *values[38:], torque_finished
    )
    command = decode_command(packet)
    assert command.message_id == number
    assert command.q.tolist() == values[:7]
    assert command.dq.tolist() == values[7:14]
    assert command.pose.T.ravel().tolist() == values[14:30]
    assert command.twist.tolist() == values[30:36]
    assert (command.elbow is not None) == elbow
    assert command.elbow is None or command.elbow.tolist() == values[36:38]
    assert command.tau.tolist() == values[38:]
    assert command.finished == (motion_finished or torque_finished)


@given(st.binary(max_size=800).filter(lambda packet: len(packet) != 371))
def test_datagram_of_another_size_is_no_command(packet):
    assert decode_command(packet) is None


@given(st.binary(min_size=371, max_size=371))
def test_any_371_bytes_are_a_command(packet):
    command = decode_command(packet)
    assert command.tau.tobytes() == packet[-57:-1]


@given(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2**32 - 1), st.binary(max_size=60)), max_size=5),
    st.data(),
)
def test_requests_survive_a_stream_cut_anywhere(requests, data):
    here, there = _connected()
    connection = Connection(there, "127.0.0.1", arm_packets.HEADER)
    stream = b"".join(
        arm_packets.HEADER.pack(command, number, 12 + len(payload)) + payload
        for command, number, payload in requests
    )
    found = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        here.sendall(stream[:cut])
        stream = stream[cut:]
        found += connection.requests()
    found += connection.requests()
    assert [tuple(request) for request in found] == requests
    assert connection.broken is None
    here.close()
    connection.close()


@pytest.mark.parametrize("size", [0, 11, MAX_REQUEST_BYTES + 1, 2**32 - 1])
def test_impossible_size_breaks_the_connection(size):
    here, there = _connected()
    connection = Connection(there, "127.0.0.1", arm_packets.HEADER)
    here.sendall(arm_packets.HEADER.pack(1, 1, size) + bytes(100))
    assert connection.requests() == []
    assert "bytes" in connection.broken
    here.close()
    connection.close()


def test_peer_that_reads_nothing_is_let_go():
    here, there = _connected()
    connection = Connection(there, "127.0.0.1", arm_packets.HEADER)
    here.sendall(arm_packets.HEADER.pack(11, 1, 12))
    (request,) = connection.requests()
    for _ in range(2000):
        connection.reply(request, bytes(10_000))
        if connection.broken:
            break
    assert "reads none" in connection.broken
    here.close()
    connection.close()


def _connected():
    """Two ends of a TCP connection; what is sent at one has arrived at the other at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
    here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return here, there


def test_error_numbers_are_those_of_the_protocol():
    named = {error.name.lower(): int(error) for error in arm_packets.Error}
    assert named["joint_position_limits_violation"] == 0
    assert named["joint_velocity_violation"] == 3
    assert named["joint_reflex"] == 6
    assert named["cartesian_reflex"] == 7
    assert named["communication_constraints_violation"] == 25
    assert named["controller_torque_discontinuity"] == 32
    assert np.max(list(named.values())) < 41
