"""What the arm looks like and what it bumps into: primitive shapes in the links' frames, drawn by us."""

from typing import NamedTuple

__all__ = ["ARM_SHAPES", "HAND_SHAPES", "FINGER_SHAPES", "Shape"]  # noqa: RUF022

Triple = tuple[float, float, float]


class Shape(NamedTuple):
    """A capsule or cylinder from `start` to `end` of the given radius, or a box centred between them."""

    kind: str
    """"capsule", "cylinder", "box" (`half` are its half extents) or "ellipsoid" (likewise)."""
    start: Triple
    end: Triple
    radius: float = 0.0
    half: Triple = (0.0, 0.0, 0.0)
    paint: str = "shell"
    collides: bool = False


def _tube(start: Triple, end: Triple, radius: float, paint: str = "shell", collides: bool = False) -> Shape:
    return Shape("cylinder", start, end, radius, paint=paint, collides=collides)


def _pill(start: Triple, end: Triple, radius: float, paint: str = "shell", collides: bool = False) -> Shape:
    return Shape("capsule", start, end, radius, paint=paint, collides=collides)


def _box(centre: Triple, half: Triple, paint: str = "shell", collides: bool = False) -> Shape:
    return Shape("box", centre, centre, half=half, paint=paint, collides=collides)


def _ball(centre: Triple, half: Triple, paint: str = "shell") -> Shape:
    return Shape("ellipsoid", centre, centre, half=half, paint=paint)


# One entry per link0 .. link7. Dark rings sit where the real arm shows its joint gaps.
ARM_SHAPES: tuple[tuple[Shape, ...], ...] = (
    (
        _box((-0.03, 0.0, 0.012), (0.105, 0.095, 0.012), "joint"),
        _pill((-0.085, 0.0, 0.055), (-0.02, 0.0, 0.065), 0.055),
        _tube((0.0, 0.0, 0.02), (0.0, 0.0, 0.135), 0.072),
        _tube((0.0, 0.0, 0.135), (0.0, 0.0, 0.143), 0.065, "joint"),
    ),
    (
        _tube((0.0, 0.0, -0.190), (0.0, 0.0, -0.04), 0.066),
        _ball((0.0, 0.0, -0.045), (0.066, 0.066, 0.045)),
        _tube((0.0, -0.062, 0.0), (0.0, 0.062, 0.0), 0.062),
        _tube((0.0, -0.066, 0.0), (0.0, 0.066, 0.0), 0.055, "joint"),
    ),
    (
        _pill((0.0, 0.0, -0.075), (0.0, 0.0, 0.075), 0.060, collides=True),
        _pill((0.0, 0.0, 0.0), (0.0, -0.11, 0.0), 0.058),
        _tube((0.0, -0.08, 0.0), (0.0, -0.185, 0.0), 0.063, collides=True),
        _tube((0.0, -0.185, 0.0), (0.0, -0.193, 0.0), 0.055, "joint"),
    ),
    (
        _tube((0.0, 0.0, -0.123), (0.0, 0.0, -0.06), 0.061),
        _pill((0.0, 0.0, -0.07), (0.0825, 0.0, 0.0), 0.057, collides=True),
        _tube((0.0825, -0.062, 0.0), (0.0825, 0.062, 0.0), 0.055),
        _tube((0.0825, -0.066, 0.0), (0.0825, 0.066, 0.0), 0.047, "joint"),
    ),
    (
        _pill((0.0, 0.0, -0.06), (0.0, 0.0, 0.06), 0.054),
        _pill((0.0, 0.0, 0.0), (-0.0825, 0.075, 0.0), 0.054, collides=True),
        _tube((-0.0825, 0.06, 0.0), (-0.0825, 0.117, 0.0), 0.059),
        _tube((-0.0825, 0.117, 0.0), (-0.0825, 0.125, 0.0), 0.052, "joint"),
    ),
    (
        _tube((0.0, 0.0, -0.259), (0.0, 0.0, -0.19), 0.058),
        _ball((0.0, 0.0, -0.19), (0.058, 0.058, 0.045)),
        _pill((0.0, 0.02, -0.19), (0.0, 0.062, -0.03), 0.045, collides=True),
        _pill((0.0, 0.062, -0.03), (0.0, 0.0, 0.0), 0.048, collides=True),
        _tube((0.0, -0.055, 0.0), (0.0, 0.06, 0.0), 0.050),
        _tube((0.0, -0.059, 0.0), (0.0, 0.0, 0.0), 0.043, "joint"),
    ),
    (
        _pill((0.0, 0.0, -0.01), (0.0, 0.0, 0.06), 0.050),
        _pill((0.0, 0.0, 0.02), (0.088, 0.0, 0.02), 0.045, collides=True),
        _tube((0.088, 0.052, 0.0), (0.088, -0.045, 0.0), 0.050),
        _tube((0.088, 0.052, 0.0), (0.088, 0.058, 0.0), 0.045, "joint"),
    ),
    (
        _tube((0.0, 0.0, 0.045), (0.0, 0.0, 0.085), 0.048, collides=True),
        _tube((0.0, 0.0, 0.085), (0.0, 0.0, 0.107), 0.040, "joint"),
        _pill((0.035, 0.035, 0.075), (0.045, 0.045, 0.075), 0.018),
    ),
)

# In the hand's frame: z towards the fingertips, the fingers slide along y.
HAND_SHAPES: tuple[Shape, ...] = (
    _box((0.0, 0.0, 0.035), (0.031, 0.1, 0.028), "shell", collides=True),
    _pill((0.0, -0.078, 0.030), (0.0, 0.078, 0.030), 0.034),
    _tube((-0.0325, 0.0, 0.042), (0.0325, 0.0, 0.042), 0.012, "joint"),
    _tube((0.0, 0.0, 0.0), (0.0, 0.0, 0.012), 0.036, "joint"),
    _box((0.0, 0.0, 0.0645), (0.012, 0.088, 0.002), "joint"),
)

# In the finger's frame: the pad's inner face is the plane y = 0, the tip is 0.0536 m out along z (9 mm past the TCP).
FINGER_SHAPES: tuple[Shape, ...] = (
    _box((0.0, 0.0145, 0.011), (0.0105, 0.0135, 0.011), "finger"),
    _box((0.0, 0.0125, 0.030), (0.0105, 0.0085, 0.010), "finger", collides=True),
    _box((0.0, 0.0065, 0.0445), (0.0105, 0.0065, 0.0091), "pad", collides=True),
)
