"""What an environment observes and accepts, as data: sent at hello, kept in every episode file.

No gymnasium here: spaces are read by their attributes, so that the learner, which receives an `EnvSpec`,
imports no environment.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from serl_suite.errors import SerlError

__all__ = ["ArraySpec", "BadStep", "EnvSpec", "Observation", "UnsupportedSpace", "env_spec"]

Array = npt.NDArray[Any]
Observation = dict[str, Array]
Bound = float | tuple[float | None, ...] | None

DTYPES = frozenset(
    [
        "bool",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "uint64",
        "int64",
        "float16",
        "float32",
        "float64",
    ]
)
DEFAULT_RATE_HZ = 10.0
STEP_OVERHEAD_BYTES = 512
MAX_SIZE = 64 * 1024 * 1024
"""Elements of one array; more is a mistake or an attack."""


class BadStep(SerlError):
    """An observation or action does not fit its spec; the message names the key and the cause."""


class UnsupportedSpace(SerlError):
    """The environment's spaces cannot be learned on; the message names the wrapper that helps."""


class ArraySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Shape, dtype and bounds of one array."""

    shape: tuple[int, ...]
    dtype: str
    """NumPy's name of it, one of `DTYPES`."""
    low: Bound = None
    """One bound for every element, or one each (C order); None is unbounded."""
    high: Bound = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype {self.dtype!r} is none of {sorted(DTYPES)}")
        if min(self.shape, default=0) < 0 or math.prod(self.shape) > MAX_SIZE:
            raise ValueError(f"shape {self.shape} is negative or holds more than {MAX_SIZE} elements")
        for bound in (self.low, self.high):
            if isinstance(bound, tuple) and len(bound) != math.prod(self.shape):
                raise ValueError(f"{len(bound)} bounds for an array of shape {self.shape}")

    @cached_property
    def low_array(self) -> npt.NDArray[np.float64]:
        """Lower bounds, -inf where there is none. Shape: `shape`."""
        return _bound_array(self.low, self.shape, -np.inf)

    @cached_property
    def high_array(self) -> npt.NDArray[np.float64]:
        """Upper bounds, +inf where there is none. Shape: `shape`."""
        return _bound_array(self.high, self.shape, np.inf)

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @cached_property
    def size(self) -> int:
        """How many elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Of one such array."""
        return self.size * self.numpy_dtype.itemsize

    @property
    def is_image(self) -> bool:
        """True for (height, width, 3) of uint8."""
        return self.dtype == "uint8" and len(self.shape) == 3 and self.shape[2] == 3

    def describe(self) -> str:
        """For example `(128, 128, 3) uint8`."""
        return f"{self.shape} {self.dtype}"

    @cached_property
    def is_float(self) -> bool:
        return self.numpy_dtype.kind == "f"

    def fault(self, array: Array) -> str | None:
        """What is wrong with an array: another shape or dtype, or not finite; None where nothing is."""
        if array.shape != self.shape or array.dtype != self.numpy_dtype:
            return f"is {array.shape} {array.dtype}, the spec says {self.describe()}"
        if self.is_float and not _finite(array):
            where = np.argwhere(~np.isfinite(array))[0].tolist()
            return f"holds {array[tuple(where)]} at {where}; every element must be finite"
        return None


class EnvSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """What crosses between an environment and its agent."""

    task: str
    observation: dict[str, ArraySpec]
    action: ArraySpec
    """Flat: (action_dim,) float32."""
    rate_hz: Annotated[float, msgspec.Meta(gt=0)] = DEFAULT_RATE_HZ
    """Control rate of the task."""

    @cached_property
    def image_keys(self) -> tuple[str, ...]:
        """Sorted keys of (height, width, 3) uint8 observations."""
        return tuple(sorted(key for key, spec in self.observation.items() if spec.is_image))

    @cached_property
    def eyes(self) -> dict[str, str]:
        """The camera that each of them is of: `front-1` beside `front` is an older picture of the same."""
        split = {key: key.rpartition("-") for key in self.image_keys}
        return {k: own if own in split and age.isdigit() else k for k, (own, _, age) in split.items()}

    @cached_property
    def state_keys(self) -> tuple[str, ...]:
        """Sorted keys of everything else."""
        return tuple(sorted(key for key, spec in self.observation.items() if not spec.is_image))

    @cached_property
    def step_bytes(self) -> int:
        """What a step keeps in memory, about."""
        return sum(spec.nbytes for spec in [*self.observation.values(), self.action]) + STEP_OVERHEAD_BYTES

    @cached_property
    def state_dim(self) -> int:
        return sum(self.observation[key].size for key in self.state_keys)

    @property
    def action_dim(self) -> int:
        return self.action.size

    def flatten(self, observation: Observation) -> npt.NDArray[np.float32]:
        """State keys raveled and joined in sorted order. Shape: (state_dim,)."""
        if len(self.state_keys) == 1:
            return observation[self.state_keys[0]].astype(np.float32).ravel()
        out = np.empty(self.state_dim, dtype=np.float32)
        start = 0
        for key in self.state_keys:
            end = start + self.observation[key].size
            out[start:end] = observation[key].ravel()
            start = end
        return out

    def wrap(self, observation: Array | Mapping[str, object]) -> Observation:
        """An environment's own observation as this spec's arrays: a bare array becomes key `state`, dtypes
        are cast, every array is a copy that the environment cannot change any more.

        Raises: BadStep, on a missing key.
        """
        flat = flat_observation(observation)
        try:
            return {
                key: np.array(flat[key], dtype=spec.numpy_dtype) for key, spec in self.observation.items()
            }
        except KeyError as e:
            raise BadStep(f"observation lacks {e}; it holds {sorted(flat)}") from None

    def difference(self, other: "EnvSpec") -> str | None:
        """The first mismatch between this spec ("here") and the other ("there") in words; None if they agree.

        Task names and bounds of observations may differ; shapes, dtypes, keys and action bounds may not.
        """
        for key in sorted(self.observation.keys() | other.observation.keys()):
            here, there = self.observation.get(key), other.observation.get(key)
            if here is None or there is None or here.describe() != there.describe():
                names = [spec.describe() if spec else "absent" for spec in (here, there)]
                return f"observation '{key}': {names[0]} here, {names[1]} there"
        if self.action.describe() != other.action.describe():
            return f"action: {self.action.describe()} here, {other.action.describe()} there"
        for name in ("low", "high"):
            mine, theirs = getattr(self.action, f"{name}_array"), getattr(other.action, f"{name}_array")
            if not np.array_equal(mine, theirs):
                return f"action bounds: {name} {mine.tolist()} here, {theirs.tolist()} there"
        return None

    def check_observation(self, observation: Observation) -> None:
        """Raises: BadStep, naming the key and the cause: missing, unknown, shape, dtype, not finite."""
        if observation.keys() != self.observation.keys():
            missing = sorted(self.observation.keys() - observation.keys())
            unknown = sorted(observation.keys() - self.observation.keys())
            raise BadStep(f"observation lacks {missing} and holds unknown {unknown}")
        for key, spec in self.observation.items():
            if fault := spec.fault(observation[key]):
                raise BadStep(f"observation '{key}' {fault}")

    def check_action(self, action: Array) -> None:
        """Raises: BadStep, naming the cause: shape, dtype, not finite."""
        if fault := self.action.fault(action):
            raise BadStep(f"action {fault}")


class _Environment(Protocol):
    @property
    def observation_space(self) -> Any: ...  # noqa: ANN401  # duck-typed: gymnasium is not imported here

    @property
    def action_space(self) -> Any: ...  # noqa: ANN401

    @property
    def metadata(self) -> dict[str, Any]: ...


def env_spec(task: str, env: _Environment) -> EnvSpec:
    """Reads the spec off an environment's spaces. A bare Box is observation key `state`; nested Dicts become
    keys joined by "/"; the action is flat; the rate is `metadata["render_fps"]`, or 10 Hz where it is absent.

    Raises: UnsupportedSpace, naming the wrapper that helps.
    """
    boxes = _boxes(env.observation_space, "")
    observation = {key or "state": _array_spec(f"observation '{key}'", box) for key, box in boxes.items()}
    for key, spec in observation.items():
        if spec.dtype == "uint8" and len(spec.shape) == 3 and spec.shape[2] in (1, 2, 4):
            raise UnsupportedSpace(
                f"{task} observes {key} as {spec.describe()}: pictures are (height, width, 3), RGB; convert them by "
                "gymnasium.wrappers.TransformObservation"
            )
    if not observation:
        raise UnsupportedSpace(f"{task} has an empty observation space; give it at least one Box")
    space = env.action_space
    if not _is_box(space):
        raise UnsupportedSpace(
            f"{task} has a {type(space).__name__} action space; only Box actions are supported"
        )
    low, high = (np.asarray(bound, dtype=np.float64).ravel() for bound in (space.low, space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise UnsupportedSpace(
            f"{task}'s actions are unbounded or empty; wrap it in gymnasium.wrappers.RescaleAction"
        )
    action = ArraySpec(shape=low.shape, dtype="float32", low=_bound(low), high=_bound(high))
    rate = float(env.metadata.get("render_fps") or DEFAULT_RATE_HZ)
    return EnvSpec(task=task, observation=observation, action=action, rate_hz=rate)


def flat_observation(observation: Array | Mapping[str, object], prefix: str = "") -> dict[str, Array]:
    """Nested dicts as one dict with keys joined by "/"; a bare array as key `state`."""
    if not isinstance(observation, Mapping):
        return {prefix or "state": np.asarray(observation)}
    flat: dict[str, Array] = {}
    for key, value in observation.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat |= flat_observation(value, name)
        else:
            flat[name] = np.asarray(value)
    return flat


def _is_box(space: object) -> bool:
    return all(hasattr(space, name) for name in ("low", "high", "shape", "dtype"))


def _boxes(space: Any, prefix: str) -> dict[str, Any]:  # noqa: ANN401
    if _is_box(space):
        return {prefix: space}
    if not isinstance(getattr(space, "spaces", None), Mapping):
        raise UnsupportedSpace(
            f"observation {prefix!r} is a {type(space).__name__}; only Box and Dict of Box are supported: "
            "wrap the environment in gymnasium.wrappers.FlattenObservation"
        )
    boxes: dict[str, Any] = {}
    for key, value in space.spaces.items():
        boxes |= _boxes(value, f"{prefix}/{key}" if prefix else str(key))
    return boxes


def _array_spec(name: str, box: Any) -> ArraySpec:  # noqa: ANN401
    dtype = np.dtype(box.dtype).name
    if dtype not in DTYPES:
        raise UnsupportedSpace(f"{name} has dtype {dtype}; use one of {sorted(DTYPES)}")
    return ArraySpec(shape=tuple(box.shape), dtype=dtype, low=_bound(box.low), high=_bound(box.high))


def _finite(array: Array) -> bool:
    """Looks at the sum of squares first, which is finite unless an element is not, or is huge."""
    return math.isfinite(np.vdot(array, array)) or bool(np.isfinite(array).all())


def _bound(values: Array) -> Bound:
    flat: Sequence[float] = np.asarray(values, dtype=np.float64).ravel().tolist()
    finite = [value if np.isfinite(value) else None for value in flat]
    if not finite or all(value == finite[0] for value in finite):
        return finite[0] if finite else None
    return tuple(finite)


def _bound_array(bound: Bound, shape: tuple[int, ...], unbounded: float) -> npt.NDArray[np.float64]:
    if not isinstance(bound, tuple):
        return np.full(shape, unbounded if bound is None else bound, dtype=np.float64)
    return np.array([unbounded if value is None else value for value in bound]).reshape(shape)
