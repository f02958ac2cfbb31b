"""Finding a camera's intrinsics from pictures of a board."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from serl_servers.cameras.calibration import BadCalibration, Calibration
from serl_suite.wire.camera_messages import Pixels

__all__ = ["Board", "View", "calibrate", "pictures_in"]

FEWEST_CORNERS = 8
"""A view with fewer says little."""
FEWEST_VIEWS = 5
DICTIONARY = cv2.aruco.DICT_5X5_100

Array = npt.NDArray[np.float32]


class View(NamedTuple):
    """A board in a picture."""

    on_board: Array
    """Corners in the board's own frame [m]. Shape: (n, 1, 3)."""
    in_picture: Array
    """The same ones [pixels]. Shape: (n, 1, 2)."""

    def is_like(self, other: "View", pixels: float) -> bool:
        """Whether the board hardly moved between the two."""
        apart = np.linalg.norm(self.in_picture.mean(0) - other.in_picture.mean(0))
        grown = abs(float(np.ptp(self.in_picture)) - float(np.ptp(other.in_picture)))
        return bool(apart < pixels and grown < pixels)


class Board(NamedTuple):
    """A flat board with a pattern of known size."""

    kind: Literal["charuco", "chess"]
    squares: tuple[int, int]
    """Across and down."""
    square_m: float
    marker_m: float
    """Side of a ChArUco marker."""

    def find(self, picture: Pixels) -> View | None:
        """Returns the board's corners in a picture; None: too few are seen. Shape: (height, width, 3), RGB."""
        grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
        return self._find_chess(grey) if self.kind == "chess" else self._find_charuco(grey)

    def picture(self, pixels_per_square: int) -> Pixels:
        """Returns the board, to be printed. Shape: (height, width, 3)."""
        across, down = (count * pixels_per_square for count in self.squares)
        if self.kind == "charuco":
            grey = np.asarray(self._charuco().generateImage((across, down)), np.uint8)
        else:
            rows, columns = np.indices((self.squares[1], self.squares[0]))
            cells = np.where((rows + columns) % 2, 255, 0).astype(np.uint8)
            grey = np.kron(cells, np.ones((pixels_per_square, pixels_per_square), np.uint8))
        return np.repeat(grey[..., None], 3, axis=2)

    def _charuco(self) -> cv2.aruco.CharucoBoard:
        dictionary = cv2.aruco.getPredefinedDictionary(DICTIONARY)
        return cv2.aruco.CharucoBoard(self.squares, self.square_m, self.marker_m, dictionary)

    def _find_charuco(self, grey: npt.NDArray[np.uint8]) -> View | None:
        board = self._charuco()
        corners, ids, _, _ = cv2.aruco.CharucoDetector(board).detectBoard(grey)
        if ids is None or len(ids) < FEWEST_CORNERS:
            return None
        on_board = np.asarray(board.getChessboardCorners(), np.float32)[ids.ravel()]
        return View(on_board.reshape(-1, 1, 3), np.asarray(corners, np.float32).reshape(-1, 1, 2))

    def _find_chess(self, grey: npt.NDArray[np.uint8]) -> View | None:
        inner = (self.squares[0] - 1, self.squares[1] - 1)
        found, corners = cv2.findChessboardCornersSB(grey, inner)
        if not found:
            return None
        on_board = np.zeros((inner[0] * inner[1], 1, 3), np.float32)
        on_board[:, 0, :2] = self.square_m * np.mgrid[: inner[0], : inner[1]].T.reshape(-1, 2)
        return View(on_board, np.asarray(corners, np.float32).reshape(-1, 1, 2))


def pictures_in(folder: Path) -> Iterator[Pixels]:
    """Yields a folder's pictures, (height, width, 3), RGB.

    Raises:
        BadCalibration: There are none.
    """
    paths = sorted(path for kind in ("*.png", "*.jpg", "*.jpeg") for path in folder.glob(kind))
    if not paths:
        raise BadCalibration(f"no PNG or JPEG in {folder}; give the folder of the board's pictures")
    for path in paths:
        picture = cv2.imread(str(path))
        if picture is None:
            raise BadCalibration(f"{path} is no picture; remove it")
        yield np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def calibrate(serial: str, size: tuple[int, int], views: Sequence[View]) -> Calibration:
    """Returns the intrinsics that put the boards' corners nearest to where they were seen.

    Args:
        serial: Of the camera.
        size: Width and height of its frames [pixels].
        views: Of the board in different places.

    Raises:
        BadCalibration: There are too few views, or they do not fit one camera.
    """
    if len(views) < FEWEST_VIEWS:
        raise BadCalibration(
            f"the board is seen in {len(views)} pictures, and {FEWEST_VIEWS} are the least; check --board, --squares "
            "and the light, and show all of it"
        )
    rms, matrix, distortion, _, _ = cv2.calibrateCamera(
        [view.on_board for view in views], [view.in_picture for view in views], size, np.eye(3), np.zeros(5)
    )
    k1, k2, p1, p2, k3 = map(float, np.ravel(distortion)[:5])
    return Calibration(
        serial=serial, width=size[0], height=size[1], rms_px=float(rms), views=len(views),
        distortion=(k1, k2, p1, p2, k3),
        intrinsics=(float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])),
    )  # fmt: skip
