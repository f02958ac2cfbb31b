"""Every message, byte for byte, against the definitions and the codec of rosbags, in both directions."""

import numpy as np
import pytest

pytest.importorskip("cyclonedds")

from graph import STORE
from hypothesis import given
from hypothesis import strategies as st
from rosbags.interfaces import Nodetype
from serl_servers.ros2 import messages
from serl_servers.ros2.transport import Messages

PACKAGES = {
    "builtin_interfaces": ("Time",),
    "std_msgs": ("Header",),
    "geometry_msgs": ("Point", "Quaternion", "Vector3", "Pose", "PoseStamped", "Wrench", "WrenchStamped"),
    "sensor_msgs": ("JointState",),
    "diagnostic_msgs": ("KeyValue", "DiagnosticStatus", "DiagnosticArray"),
}
KINDS = {name: f"{package}/msg/{name}" for package, names in PACKAGES.items() for name in names}
BASE = {
    "int32": st.integers(-(2**31), 2**31 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "byte": st.integers(0, 127),
    "float64": st.floats(allow_nan=False),
    "string": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
}


def values(field):
    """What a field may hold, by its definition in rosbags."""
    kind, detail = field
    if kind is Nodetype.BASE:
        return BASE[detail[0]]
    if kind is Nodetype.NAME:
        return st.fixed_dictionaries({name: values(part) for name, part in STORE.fielddefs[detail][1]})
    assert kind is Nodetype.SEQUENCE
    return st.lists(values(detail[0]), max_size=4)


def theirs(field, value):
    kind, detail = field
    if kind is Nodetype.NAME:
        parts = dict(STORE.fielddefs[detail][1])
        return STORE.types[detail](**{name: theirs(parts[name], part) for name, part in value.items()})
    if kind is Nodetype.SEQUENCE:
        if detail[0][0] is Nodetype.BASE and detail[0][1][0] == "float64":
            return np.array(value, np.float64)
        return [theirs(detail[0], part) for part in value]
    return value


def ours(field, value):
    kind, detail = field
    if kind is Nodetype.NAME:
        parts = dict(STORE.fielddefs[detail][1])
        made = getattr(messages, detail.rsplit("/", 1)[1])
        return made(**{name: ours(parts[name], part) for name, part in value.items()})
    if kind is Nodetype.SEQUENCE:
        return [ours(detail[0], part) for part in value]
    return value


def test_every_message_is_checked():
    assert set(KINDS) == set(Messages._fields) == set(messages.__all__)


@pytest.mark.parametrize("name", KINDS)
def test_types_are_called_as_ros_2_calls_them(name):
    package, _, _ = KINDS[name].split("/")
    typename = getattr(messages, name).__idl_typename__.replace(".", "::")
    assert typename == f"{package}::msg::dds_::{name}_"


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_bytes_are_the_same_in_both_directions(name, data):
    field = (Nodetype.NAME, KINDS[name])
    value = data.draw(values(field))
    reference = bytes(STORE.serialize_cdr(theirs(field, value), KINDS[name]))
    message = ours(field, value)
    assert message.serialize(use_version_2=False) == reference
    assert type(message).deserialize(reference) == message
    read_again = STORE.deserialize_cdr(message.serialize(use_version_2=False), KINDS[name])
    assert bytes(STORE.serialize_cdr(read_again, KINDS[name])) == reference


def test_levels_are_those_of_ros_2():
    for name, _, value in STORE.fielddefs[KINDS["DiagnosticStatus"]][0]:
        assert getattr(messages.DiagnosticStatus, name) == value
