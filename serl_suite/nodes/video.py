"""Films of a policy: MP4 with a caption bar, and a GIF small enough for a README."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import numpy.typing as npt
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from serl_suite.agents.policy import Policy
from serl_suite.nodes.environment import Environment
from serl_suite.nodes.evaluation import evaluate

__all__ = ["GIF_MAX_BYTES", "Film", "film_policy"]

Picture = npt.NDArray[np.uint8]

MIN_WIDTH = 320
HOLD_S = 0.8
"""The last picture of an episode stays this long, with the verdict."""
MAX_FILM_S = 30.0
GIF_MAX_BYTES = 2_000_000
GIF_MAX_FRAMES = 150
GIF_WIDTHS = (320, 240, 160, 96)
BAR, TEXT, FAINT, SUCCESS, FAILURE = "#17212b", "#ffffff", "#9aa7b4", "#57d38c", "#ff8a75"


class Film:
    """Writes pictures as H.264 (yuv420p) while they come, and the first of them as a GIF at the end.

    Args:
        mp4: Receives the film.
        gif: Receives its beginning, at most `GIF_MAX_BYTES`.
        rate_hz: Pictures a second.
    """

    def __init__(self, mp4: Path, gif: Path, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self.frames = 0
        self._gif = gif
        self._small: list[Image.Image] = []
        self._container = av.open(str(mp4), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate=Fraction(rate_hz).limit_denominator(1000))
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "medium"}

    @property
    def seconds(self) -> float:
        """Length so far."""
        return self.frames / self.rate_hz

    def add(self, picture: Picture, left: str, right: str = "", colour: str = TEXT) -> None:
        """Adds one picture with its caption.

        Args:
            picture: Shape: (height, width, 3); the same for every picture of a film.
            left: Text at the left of the caption bar.
            right: Text at its right.
            colour: Of the right text.
        """
        image = _captioned(picture, left, right, colour)
        if self.frames == 0:
            self._stream.width, self._stream.height = image.size
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")):
            self._container.mux(packet)
        if len(self._small) < GIF_MAX_FRAMES:
            self._small.append(_resized(image, GIF_WIDTHS[0]))
        self.frames += 1

    def __enter__(self) -> "Film":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.frames:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()
        if self._small and error is None:
            _write_gif(self._gif, self._small, self.rate_hz)


def film_policy(
    environment: Environment,
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    knows_success: bool,
    mp4: Path,
    gif: Path,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Films the first episodes of an evaluation, unselected; at most `MAX_FILM_S`.

    Args:
        environment: Made with render_mode "rgb_array".
        policy: Acts without exploration.
        episodes: How many.
        seed: The evaluation's; the episodes are then the very ones that were counted.
        knows_success: Whether a caption may tell success from failure.
        mp4: Receives the film.
        gif: Receives its beginning.
        should_stop: Ends the film early.
    """
    rate_hz = environment.spec.rate_hz
    picture: Picture | None = None
    step = 0
    with Film(mp4, gif, rate_hz) as film:

        def on_observation(number: int, _: object) -> None:
            nonlocal picture, step
            step = 0 if picture is None else step + 1
            picture = environment.render()
            film.add(picture, f"episode {number + 1}", f"{step / rate_hz:.1f} s", FAINT)

        outcomes = evaluate(
            environment,
            policy,
            episodes=episodes,
            seed=seed,
            on_observation=on_observation,
            should_stop=lambda: should_stop() or film.seconds >= MAX_FILM_S,
        )
        for number, outcome in enumerate(outcomes):
            assert picture is not None
            verdict, colour = ("success", SUCCESS) if outcome.success else ("no success", FAILURE)
            if not knows_success:
                verdict, colour = "end", TEXT
            right = f"{verdict} after {outcome.length / rate_hz:.1f} s"
            for _ in range(max(1, round(HOLD_S * rate_hz))):
                film.add(picture, f"episode {number + 1}", right, colour)
            picture = None


def _captioned(picture: Picture, left: str, right: str, colour: str) -> Image.Image:
    """The picture, enlarged where it is tiny, above a bar with the texts; width and height even, as H.264 wants."""
    image = Image.fromarray(picture)
    scale = -(-MIN_WIDTH // image.width)
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    width, bar = image.width & ~1, round(image.width / 14)
    canvas = Image.new("RGB", (width, (image.height + bar) & ~1), BAR)
    canvas.paste(image, (0, 0))
    draw = ImageDraw.Draw(canvas)
    middle, margin = image.height + bar / 2, bar / 2
    draw.text((margin, middle), left, TEXT, _font(bar // 2), "lm")
    draw.text((width - margin, middle), right, colour, _font(bar // 2), "rm")
    return canvas


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans"), size)


def _resized(image: Image.Image, width: int) -> Image.Image:
    return image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)


def _write_gif(path: Path, frames: list[Image.Image], rate_hz: float) -> None:
    """The widest of `GIF_WIDTHS` that stays within `GIF_MAX_BYTES`, with one palette for all frames."""
    for width in GIF_WIDTHS:
        small = [_resized(frame, width) for frame in frames]
        palette = _mosaic(small[:: max(1, len(small) // 8)]).quantize(128)
        indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in small]
        indexed[0].save(
            path, save_all=True, append_images=indexed[1:], duration=1000 / rate_hz, loop=0, optimize=True
        )
        if path.stat().st_size <= GIF_MAX_BYTES:
            return


def _mosaic(frames: list[Image.Image]) -> Image.Image:
    mosaic = Image.new("RGB", (frames[0].width, frames[0].height * len(frames)))
    for number, frame in enumerate(frames):
        mosaic.paste(frame, (0, number * frame.height))
    return mosaic
