"""What assembly tasks share: sockets with a rectangular opening, starts with the part in the fingers, and the script
that brings the part into the opening."""

from typing import NamedTuple

import mujoco
import numpy as np
from serl_hardware.franka.model import COLLIDE_FIXTURE, COLLIDE_OBJECT

from serl_envs.experts import Motion
from serl_envs.robot import Array, RobotState, Setpoint
from serl_envs.tasks.task import SimulatedRobot, Task, turned_down, wrapped
from serl_envs.twins.scene import Scene
from serl_suite.control.rotations import delta_between, quaternion_inverse, quaternion_multiply, rotate

__all__ = ["STIFF_CONTACT", "Insertion", "Mating", "add_part", "add_socket", "reset_holding", "upright"]

STIFF_CONTACT = {"solref": (0.004, 1.0), "solimp": (0.95, 0.99, 0.0005, 0.5, 2.0)}
"""Contact settings for close fits: twice the step is the stiffest that 1 kHz resolves, and half a millimetre of
clearance must not drown in softness."""
SETTLE_STEPS = 3


def add_socket(
    spec: mujoco.MjSpec, opening_half: tuple[float, float], outer_half: float, bottom: float, top: float
) -> None:
    """Adds the fixed body `socket`, origin at the centre of the opening's mouth, z up: four walls around a rectangle.

    Args:
        spec: The scene.
        opening_half: Half extents of the opening along the socket's x and y [m].
        outer_half: Half extent of the square outline [m].
        bottom: Where the walls begin above the table [m].
        top: Where they end: the mouth's height [m].
    """
    body = spec.worldbody.add_body(name="socket", pos=(0.5, 0.0, top))
    (x, y), half, middle = opening_half, 0.5 * (top - bottom), -0.5 * (top - bottom)
    end_x, end_y = 0.5 * (outer_half - x), 0.5 * (outer_half - y)
    walls = [
        ((x + end_x, 0, middle), (end_x, outer_half, half)),
        ((-x - end_x, 0, middle), (end_x, outer_half, half)),
        ((0, y + end_y, middle), (x, end_y, half)),
        ((0, -y - end_y, middle), (x, end_y, half)),
    ]
    for pos, size in walls:
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, pos=pos, size=size, rgba=(0.20, 0.42, 0.62, 1), contype=0,
            conaffinity=COLLIDE_FIXTURE, friction=(0.3, 0.005, 1e-4), **STIFF_CONTACT,
        )  # fmt: skip
    if bottom > 0.0:
        for sx in (-1, 1):
            for sy in (-1, 1):
                post = 0.15 * outer_half
                body.add_geom(
                    type=mujoco.mjtGeom.mjGEOM_BOX, size=(post, post, 0.5 * bottom), contype=0, conaffinity=0,
                    pos=(sx * (outer_half - post), sy * (outer_half - post), -top + 0.5 * bottom),
                    rgba=(0.25, 0.27, 0.30, 1),
                )  # fmt: skip


def add_part(spec: mujoco.MjSpec, shapes: list[dict[str, object]], mass: float) -> None:
    """Adds the free body `part` out of shapes (keyword arguments of `add_geom`) that share its mass [kg]."""
    body = spec.worldbody.add_body(name="part", pos=(0.5, 0.0, 0.3))
    body.add_freejoint(name="part")
    for shape in shapes:
        body.add_geom(
            mass=mass / len(shapes), condim=4, friction=(0.3, 0.01, 1e-4),
            contype=COLLIDE_FIXTURE, conaffinity=COLLIDE_OBJECT, **STIFF_CONTACT, **shape,
        )  # fmt: skip


def upright(yaw_rad: float) -> Array:
    """Quaternion (xyzw) of a thing that stands upright, turned by a yaw. Shape: (4,)."""
    return np.array([0.0, 0.0, np.sin(yaw_rad / 2), np.cos(yaw_rad / 2)])


def reset_holding(
    robot: SimulatedRobot,
    position: Array,
    yaw_rad: float,
    width_m: float,
    tip_below_tcp_m: float,
    socket: tuple[Array, Array] | None = None,
) -> None:
    """Puts `part` between the open fingers, closes them, and waits until both are at rest.

    Args:
        robot: Moved.
        position: TCP in the base frame [m].
        yaw_rad: Of the tool.
        width_m: Of the part between the fingers.
        tip_below_tcp_m: Where the part's origin, its tip, is below the TCP.
        socket: Where `socket` is put once the tool, which may have been in it, is at its start.
    """
    tool = turned_down(yaw_rad)
    robot.reset(position, tool, width_m + 0.0005)
    if socket is not None:
        robot.scene.place("socket", *socket)
    robot.scene.place("part", position - np.array([0.0, 0.0, tip_below_tcp_m]), upright(yaw_rad))
    for _ in range(SETTLE_STEPS):
        robot.command(Setpoint(position, tool, 0.0), 0.1)


class Mating(NamedTuple):
    """How the part's tip stands to the socket's mouth."""

    offset: Array
    """From the tip to the mouth's centre, in the tool frame [m], (3,)."""
    turn: Array
    """The rotation vector, in the tool frame, that aligns the part, (3,); of the equivalent turns the nearest."""
    depth: float
    """How deep the tip is below the mouth [m]."""
    lateral: float
    """Distance of the tip from the socket's axis [m]."""
    tilt: float
    """Angle between the axes [rad]."""
    yaw: float
    """Turn of the part against the socket about the socket's axis, up to symmetry [rad]."""

    @classmethod
    def measure(cls, state: RobotState, scene: Scene, symmetry_rad: float) -> "Mating":
        """Measures from poses; turning by `symmetry_rad` about its axis leaves the part the same."""
        tip, part = scene.pose("part")
        mouth, socket = scene.pose("socket")
        from_socket, _ = delta_between(mouth, socket, tip, part)
        forward = rotate(quaternion_multiply(quaternion_inverse(socket), part), np.array([1.0, 0.0, 0.0]))
        yaw = wrapped(float(np.arctan2(forward[1], forward[0])), symmetry_rad)
        axis = rotate(part, np.array([0.0, 0.0, 1.0]))
        socket_axis = rotate(socket, np.array([0.0, 0.0, 1.0]))
        to_tool = quaternion_inverse(state.quaternion)
        turn = np.cross(axis, socket_axis) - yaw * socket_axis
        return cls(
            offset=rotate(to_tool, mouth - tip),
            turn=rotate(to_tool, turn),
            depth=-float(from_socket[2]),
            lateral=float(np.hypot(from_socket[0], from_socket[1])),
            tilt=float(np.arccos(np.clip(axis @ socket_axis, -1.0, 1.0))),
            yaw=yaw,
        )


class Insertion:
    """A script: over the mouth, then down; where the part sits on the rim, pushes lightly and feels around for the
    opening, and starts over where it isn't found.

    Args:
        task: Whose scales the actions have.
        symmetry_rad: Of the part, see `Mating.measure`.
        aligned_rad: Goes down once the yaw is within this.
        search_m: Radius of the circle felt around on the rim.
        depth_m: How deep the tip is sent once it is in.
    """

    PACE = 0.6
    TURN_GAIN = 1.5
    HOVER_M = 0.004
    """How high over the mouth the part is aligned, and how far below it the part is sent while it sits on the rim."""
    ALIGNED_M = 0.002
    LATERAL_GAIN = 2.0
    """The last millimetre needs more than its own length of spring to overcome friction."""
    IN_M = 0.002
    """Deeper than this, the tip is in the opening."""
    SEARCH_RAD = 2.4
    """How far round the circle goes in a step."""
    PATIENCE = 30
    """Steps on the rim before it starts over."""

    def __init__(
        self, task: Task, *, symmetry_rad: float, aligned_rad: float, search_m: float, depth_m: float
    ) -> None:
        self._motion = Motion(task.translation_m, task.rotation_rad, self.PACE)
        self._symmetry_rad, self._aligned_rad = symmetry_rad, aligned_rad
        self._search_m, self._depth_m = search_m, depth_m
        self.start_over()

    def start_over(self) -> None:
        """The part is to be aligned again."""
        self._aligning = True
        self._on_rim = 0

    def act(self, state: RobotState, scene: Scene) -> Array:
        """Returns the next action before noise. Shape: (7,)."""
        mating = Mating.measure(state, scene, self._symmetry_rad)
        if self._aligning:
            if mating.lateral < self.ALIGNED_M and abs(mating.yaw) < self._aligned_rad:
                self._aligning, self._on_rim = False, 0
            return self._motion.by(
                state, mating.offset - np.array([0.0, 0.0, self.HOVER_M]), self.TURN_GAIN * mating.turn, 1.0
            )
        if mating.depth > self.IN_M:
            return self.push(state, mating)
        self._on_rim += 1
        if self._on_rim > self.PATIENCE or mating.lateral > 3 * self.ALIGNED_M:
            self._aligning = True
        angle = self.SEARCH_RAD * self._on_rim
        feel = np.array([self._search_m * np.cos(angle), self._search_m * np.sin(angle), self.HOVER_M])
        return self._motion.by(state, self._to_axis(mating) + feel, self.TURN_GAIN * mating.turn, 1.0)

    def push(self, state: RobotState, mating: Mating, turn_rad: float = 0.0) -> Array:
        """Returns the action that goes down the axis, and turns the part away from alignment. Shape: (7,).

        Args:
            state: Of the robot.
            mating: The part's.
            turn_rad: Yaw to turn to, against the tool's z.
        """
        way = self._to_axis(mating) + np.array([0.0, 0.0, self._depth_m])
        turn = self.TURN_GAIN * mating.turn
        turn[2] -= self.TURN_GAIN * turn_rad
        return self._motion.by(state, way, turn, 1.0)

    def _to_axis(self, mating: Mating) -> Array:
        way: Array = mating.offset * np.array([self.LATERAL_GAIN, self.LATERAL_GAIN, 1.0])
        return way
