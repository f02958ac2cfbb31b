"""Looking through a camera for a board that somebody moves about."""

import logging
from collections.abc import Callable, Iterable, Iterator

from serl_servers.cameras.boards import Board, View
from serl_servers.cameras.calibration import BadCalibration
from serl_servers.cameras.capture import open_camera
from serl_suite.rig import Camera
from serl_suite.wire.camera_messages import Pixels

__all__ = ["different_views", "frames_of"]

READ_S = 0.5

_log = logging.getLogger(__name__)


def frames_of(camera: Camera, should_stop: Callable[[], bool], scene: str = "") -> Iterator[Pixels]:
    """Yields what a camera sees, until told to stop. Shape: (height, width, 3), RGB.

    Raises:
        CameraFault: It is not there, or goes away.
    """
    driver = open_camera(camera, scene)
    try:
        while not should_stop():
            frame = driver.read(READ_S)
            if frame is not None:
                yield frame.pixels
    finally:
        driver.close()


def different_views(
    board: Board, pictures: Iterable[Pixels], size: tuple[int, int], apart_px: float, most: int
) -> list[View]:
    """Returns the views of the board that differ from one another.

    Args:
        board: That is looked for.
        pictures: In which.
        size: Their width and height.
        apart_px: How far the board has to have moved, or by how much it has to have grown.
        most: Ends with so many.

    Raises:
        BadCalibration: A picture has another size.
    """
    views: list[View] = []
    for picture in pictures:
        if picture.shape[1::-1] != size:
            raise BadCalibration(
                f"a picture has {picture.shape[1]}x{picture.shape[0]} pixels, and the rig's camera "
                f"{size[0]}x{size[1]}; take them in the rig's resolution"
            )
        view = board.find(picture)
        if view is not None and not any(view.is_like(other, apart_px) for other in views):
            views.append(view)
            _log.info("view %d of %d", len(views), most)
        if len(views) == most:
            break
    return views
