"""Which pictures of several cameras belong together."""

from collections.abc import Sequence

from serl_servers.cameras.channel import Shot

__all__ = ["matching"]


def matching(cameras: Sequence[Sequence[Shot]]) -> tuple[list[Shot], float]:
    """Returns a picture of each camera, and how far their arrivals are apart [s].

    No camera is waited for: the moment is the newest picture's of the camera that is furthest behind, and of each other
    one the picture nearest to it is taken. Two cameras at one rate are thus half a period apart at most.

    Args:
        cameras: Of each its last pictures, the newest last; none is empty.
    """
    moment = min((shots[-1].stamp.host_ns for shots in cameras), default=0)
    chosen = [min(shots, key=lambda shot: abs(shot.stamp.host_ns - moment)) for shots in cameras]
    arrivals = [shot.stamp.host_ns for shot in chosen]
    return chosen, (max(arrivals) - min(arrivals)) * 1e-9 if arrivals else 0.0
