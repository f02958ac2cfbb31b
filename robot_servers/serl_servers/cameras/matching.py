"""Which pictures of several cameras belong together."""

from collections.abc import Sequence

from serl_servers.cameras.channel import Shot

__all__ = ["matching", "skew_s"]


def matching(cameras: Sequence[Sequence[Shot]]) -> list[Shot]:
    """Returns a picture of each camera.

    No camera is waited for: the moment is the newest picture's of the camera that is furthest behind, and of each other
    one the picture nearest to it is taken. Two cameras at one rate are thus half a period apart at most.

    Args:
        cameras: Of each its last pictures, the newest last; none is empty.
    """
    moment = min((shots[-1].stamp.host_ns for shots in cameras), default=0)
    return [min(shots, key=lambda shot: abs(shot.stamp.host_ns - moment)) for shots in cameras]


def skew_s(shots: Sequence[Shot]) -> float:
    """How far the arrivals of these pictures are apart [s]."""
    arrivals = [shot.stamp.host_ns for shot in shots]
    return (max(arrivals) - min(arrivals)) * 1e-9 if arrivals else 0.0
