"""Replay: every observation is stored once, and a transition is an explicit link between two stored frames.

A frame is one `Step`: the observation, and the action, reward and end flags that led to it. The transition of a
frame exists only while its predecessor, the frame with the index before it in the same episode of the same
session, is stored as well. Neighbouring slots mean nothing, so several actors may interleave, segments may have
gaps, and no sample can pair states of two episodes.

A truncated step bootstraps from its own final observation (mask 1); only `terminated` ends a value (mask 0).
"""

import json
import threading
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from serl_suite.data.actions import ActionScale
from serl_suite.data.columns import Column, FeatureColumn, Features, ImageColumn
from serl_suite.data.prefault import Prefault
from serl_suite.errors import SerlError
from serl_suite.wire.messages import SOURCES, Step
from serl_suite.wire.spaces import EnvSpec

__all__ = ["EVERYTHING", "Batch", "Chunks", "Draw", "EmptyReplay", "Replay"]

NONE = -1
EVERYTHING = slice(None)
"""The share of a batch that is all of it."""
MAX_EMPTY_DRAWS = 64  # rejected draws in a row before a chunk sample is declared impossible


class EmptyReplay(SerlError):
    """Nothing in the replay can be sampled yet."""


class Batch(NamedTuple):
    """Transitions on the replay's device. Images are uint8, after random shift, or the features that the replay keeps
    of them, (batch, size); none where the spec has none."""

    state: torch.Tensor
    """Shape: (batch, state_dim), float32"""
    images: dict[str, torch.Tensor]
    """Shape of each: (batch, height, width, 3), uint8"""
    action: torch.Tensor
    """Each bound of the action space at -1 or 1. Shape: (batch, action_dim), float32"""
    reward: torch.Tensor
    """Shape: (batch,), float32"""
    mask: torch.Tensor
    """1 - terminated. Shape: (batch,), float32"""
    next_state: torch.Tensor
    """Shape: (batch, state_dim), float32"""
    next_images: dict[str, torch.Tensor]
    """Shape of each: (batch, height, width, 3), uint8"""
    cost: torch.Tensor | None = None
    """Where the replay keeps costs. Shape: (batch,), float32"""


class Draw(NamedTuple):
    """Which transitions, and how their images are looked at."""

    rows: NDArray[np.int64]
    """Where they lie, before and after. Shape: (2, batch)"""
    views: NDArray[np.int64]
    """Of each camera in the spec's order: what its column's `draw_views` drew. Shape: (cameras, 2, batch, 2)"""

    def part(self, share: slice) -> "Draw":
        """Some of the transitions."""
        rows, views = self.rows[:, share], self.views[:, :, share]
        return Draw(np.ascontiguousarray(rows), np.ascontiguousarray(views))


class Chunks(NamedTuple):
    """Windows of `horizon` consecutive actions. What follows a terminal is padding: zero action, zero reward."""

    state: torch.Tensor
    """Before the window's first action. Shape: (batch, state_dim)"""
    action: torch.Tensor
    """Shape: (batch, horizon, action_dim)"""
    reward: torch.Tensor
    """Shape: (batch, horizon)"""
    length: torch.Tensor
    """Real steps in the window, the rest is padding. Shape: (batch,), int64"""
    mask: torch.Tensor
    """0 where the window holds a terminal. Shape: (batch,)"""
    next_state: torch.Tensor
    """After the window's last real step. Shape: (batch, state_dim)"""


@dataclass(frozen=True, slots=True)
class _Last:
    """The newest frame of a session, to which the session's next step may be linked."""

    seq: int
    episode: int
    index: int
    ended: bool
    slot: int
    serial: int


class Replay:
    """A ring of frames, sampled uniformly over the transitions that are whole; any thread may use it at any time.

    Args:
        spec: What a step holds.
        capacity: Frames to keep; the oldest is overwritten.
        seed: Of the sampler, which is this replay's own.
        device: Where the arrays live and the batches appear.
        shift: Largest random shift of an image [pixels], drawn per camera, sample and side of the transition.
        costs: Whether batches carry each step's cost.
        features: What to keep in the place of images.
    """

    def __init__(
        self,
        spec: EnvSpec,
        capacity: int,
        *,
        seed: int,
        device: str | torch.device = "cpu",
        shift: int = 4,
        costs: bool = False,
        features: Features | None = None,
    ) -> None:
        if capacity < 2:
            raise SerlError(
                f"a replay of {capacity} frames holds no transition; give it a capacity of 2 or more"
            )
        self.spec = spec
        self.capacity = capacity
        self.keeps_features = features is not None
        self.device = torch.device(device)
        self.duplicates = 0
        """Steps ignored because the session had already delivered them."""
        self.sampled = 0
        """Transitions handed out so far."""
        self._lock = threading.Lock()
        self._rng = np.random.default_rng(seed)
        self._scale = ActionScale(spec.action)
        self._state = Column(capacity, (spec.state_dim,), torch.float32, self.device)
        self._action = Column(capacity, (spec.action_dim,), torch.float32, self.device)
        self._reward_mask = Column(capacity, (2,), torch.float32, self.device)
        self._cost = Column(capacity, (1,), torch.float32, self.device) if costs else None
        self._eyes = [spec.image_keys.index(eye) for eye in spec.eyes.values()]
        """Place of the camera that each picture is of: a stack's pictures of one are shifted alike."""
        self._images = {
            key: _image_column(capacity, spec.observation[key].shape, shift, self.device, features, place)
            for key, place in zip(spec.image_keys, self._eyes, strict=True)
        }
        hosts = [column.host for column in self._images.values()]
        self._prefault = Prefault([host for host in hosts if host is not None])
        self._previous: NDArray[np.int64] = np.full(capacity, NONE, np.int64)
        self._next: NDArray[np.int64] = np.full(capacity, NONE, np.int64)
        self._terminated: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        self._source: NDArray[np.uint8] = np.zeros(capacity, np.uint8)
        self._intervention: NDArray[np.bool_] = np.zeros(capacity, np.bool_)
        self._serial: NDArray[np.int64] = np.full(capacity, NONE, np.int64)
        self._members: NDArray[np.int64] = np.empty(capacity, np.int64)  # slots of whole transitions, dense
        self._rank: NDArray[np.int64] = np.full(capacity, NONE, np.int64)  # slot -> position in _members
        self._size = 0
        self._inserted = 0
        self._last: dict[str, _Last] = {}

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return self._size

    @property
    def frames(self) -> int:
        """Frames stored."""
        return min(self._inserted, self.capacity)

    @property
    def nbytes(self) -> int:
        """Bytes reserved for `capacity` frames, bookkeeping included."""
        columns = [self._state, self._action, self._reward_mask, *self._images.values()]
        columns += [] if self._cost is None else [self._cost]
        books = [self._previous, self._next, self._terminated, self._source, self._intervention, self._serial]
        return sum(c.nbytes for c in columns) + sum(b.nbytes for b in [*books, self._members, self._rank])

    @property
    def counts(self) -> dict[str, int]:
        """Sampleable transitions by source, and how many of them are interventions."""
        with self._lock:
            slots = self._members[: self._size]
            by_source = np.bincount(self._source[slots], minlength=len(SOURCES))
            interventions = int(self._intervention[slots].sum())
        return {**dict(zip(SOURCES, by_source.tolist(), strict=True)), "intervention": interventions}

    def insert(self, session_id: str, step: Step, *, previous: Step | None = None) -> bool:
        """Stores a step and returns whether it completed a transition.

        Steps of a session come in the order of `seq`; one that came before is ignored, so resending is harmless.
        A step that does not follow the session's newest frame, or that follows an end, starts a segment of its own
        and is only a frame: a vector environment's autoreset step is a reset, whatever its index.

        Args:
            session_id: Of the actor's run.
            step: Checked against the spec by whoever received it.
            previous: The step before it, for a replay that is given parts of episodes only (interventions):
                stored as a frame where it is missing, so that the first action of a part has its state.
        """
        with self._lock:
            if previous is not None and not self._follows(session_id, step):
                self._insert(session_id, previous, whole=False)
            return self._insert(session_id, step, whole=True)

    def sample(self, batch_size: int, share: slice = EVERYTHING) -> Batch:
        """Transitions drawn uniformly with replacement; the given part of them.

        Raises:
            EmptyReplay: no transition is whole yet.
        """
        with self._lock:
            draw = self._draw_transitions(batch_size).part(share)
            rows, views = (torch.from_numpy(part).to(self.device) for part in draw)
            return self.gather(rows, views)

    def draw(self, batch_size: int) -> Draw:
        """Transitions drawn uniformly with replacement, for `gather`.

        Raises:
            EmptyReplay: no transition is whole yet.
        """
        with self._lock:
            return self._draw_transitions(batch_size)

    def gather(self, rows: torch.Tensor, views: torch.Tensor, into: Batch | None = None) -> Batch:
        """What was drawn. Only operations on the device, for a CUDA graph.

        Args:
            rows, views: A `Draw`'s, on the device, before any further insert.
            into: Its images are overwritten, and are those of the result.
        """
        before, after = rows.unbind(0)
        state, next_state = self._state.gather(rows.flatten()).view(2, len(after), -1)
        reward, mask = self._reward_mask.gather(after).unbind(1)
        cost = None if self._cost is None else self._cost.gather(after)[:, 0]
        places = (None, None) if into is None else (into.images, into.next_images)
        images, next_images = (
            {
                key: column.gather_views(side, views[i, j], None if to is None else to[key])
                for i, (key, column) in enumerate(self._images.items())
            }
            for j, (side, to) in enumerate(((before, places[0]), (after, places[1])))
        )
        return Batch(state, images, self._action.gather(after), reward, mask, next_state, next_images, cost)

    def sample_chunks(self, batch_size: int, horizon: int) -> Chunks:
        """Windows of `horizon` actions, drawn uniformly over the windows that can be valued (state only).

        A window that reaches a terminal is padded, so the last reward is seen in as many windows as any other.
        One that reaches a truncation, a gap or the newest frame is not drawn: what followed is unknown.

        Raises:
            EmptyReplay: no such window was found.
        """
        with self._lock:
            slots = self._draw_windows(batch_size, horizon)
            real = slots >= 0
            length = real.sum(1)
            last = slots[np.arange(batch_size), length - 1]
            shown = torch.from_numpy(real).to(self.device)
            flat = np.maximum(slots, 0).ravel()
            action = self._action.take(flat).view(batch_size, horizon, -1) * shown[:, :, None]
            reward = self._reward_mask.take(flat)[:, 0].reshape(batch_size, horizon) * shown
            before = self._previous[slots[:, 0]]
            state, next_state = self._state.take(np.concatenate([before, last])).view(2, batch_size, -1)
            mask = self._reward_mask.take(last)[:, 1]
            self.sampled += batch_size
            lengths = torch.from_numpy(length).to(self.device)
            return Chunks(state, action, reward, lengths, mask, next_state)

    def states(self) -> NDArray[np.float32]:
        """A copy of every stored state, for statistics. Shape: (frames, state_dim)"""
        with self._lock:
            return self._state.take(np.arange(self.frames)).cpu().numpy()

    def rng_state(self) -> str:
        """The sampler's state as JSON, for a checkpoint."""
        return json.dumps(self._rng.bit_generator.state)

    def set_rng_state(self, state: str) -> None:
        """Restores what `rng_state` returned."""
        self._rng.bit_generator.state = json.loads(state)

    def _follows(self, session_id: str, step: Step) -> bool:
        """Whether the session's newest frame is stored and is the one right before `step`."""
        last = self._last.get(session_id)
        return (
            last is not None
            and not last.ended
            and (last.episode, last.index) == (step.episode, step.index - 1)
            and bool(self._serial[last.slot] == last.serial)
        )

    def _insert(self, session_id: str, step: Step, *, whole: bool) -> bool:
        """Stores a frame; `whole` allows it to complete a transition."""
        last = self._last.get(session_id)
        if last is not None and step.seq <= last.seq:
            self.duplicates += 1
            return False
        slot = self._inserted % self.capacity
        self._prefault.reach(slot)
        self._evict(slot)
        linked = whole and step.action is not None and self._follows(session_id, step)
        self._state.put(slot, self.spec.flatten(step.observation))
        for key, column in self._images.items():
            column.put(slot, step.observation[key])
        self._serial[slot] = self._inserted
        if linked and last is not None and step.action is not None:
            self._action.put(slot, self._scale.to_unit(step.action))
            self._reward_mask.put(slot, np.array([step.reward, 1.0 - step.terminated], np.float32))
            if self._cost is not None:
                self._cost.put(slot, np.array([step.cost], np.float32))
            self._terminated[slot] = step.terminated
            self._source[slot] = SOURCES.index(step.source)
            self._intervention[slot] = step.intervention
            self._previous[slot] = last.slot
            self._next[last.slot] = slot
            self._add_member(slot)
        ended = step.terminated or step.truncated
        self._last[session_id] = _Last(step.seq, step.episode, step.index, ended, slot, self._inserted)
        self._inserted += 1
        return linked

    def _evict(self, slot: int) -> None:
        """Frees a slot: its own transition and the one that starts from it are gone."""
        before, after = self._previous[slot], self._next[slot]
        if before != NONE:
            self._next[before] = NONE
            self._remove_member(slot)
        if after != NONE:
            self._previous[after] = NONE
            self._remove_member(int(after))
        self._previous[slot] = self._next[slot] = self._serial[slot] = NONE

    def _add_member(self, slot: int) -> None:
        self._members[self._size] = slot
        self._rank[slot] = self._size
        self._size += 1

    def _remove_member(self, slot: int) -> None:
        self._size -= 1
        rank, moved = self._rank[slot], self._members[self._size]
        self._members[rank] = moved
        self._rank[moved] = rank
        self._rank[slot] = NONE

    def _draw_transitions(self, batch_size: int) -> Draw:
        after = self._draw(batch_size)
        self.sampled += batch_size
        views = np.empty((len(self._images), 2, batch_size, 2), np.int64)
        for i, (eye, column) in enumerate(zip(self._eyes, self._images.values(), strict=True)):
            drawn = views[eye] if eye < i else column.draw_views(2 * batch_size, self._rng)
            views[i] = drawn.reshape(2, batch_size, 2)
        return Draw(np.stack([self._previous[after], after]), views)

    def _draw(self, count: int) -> NDArray[np.int64]:
        if self._size == 0:
            raise EmptyReplay(
                "the replay holds no whole transition yet; insert an episode of two steps or more first"
            )
        return self._members[self._rng.integers(self._size, size=count)]

    def _draw_windows(self, count: int, horizon: int) -> NDArray[np.int64]:
        """Slots of each window's steps, NONE where it is padding. Shape: (count, horizon)"""
        found: list[NDArray[np.int64]] = []
        missing, empty_draws = count, 0
        while missing > 0:
            slots = np.full((count, horizon), NONE, np.int64)
            slots[:, 0] = current = self._draw(count)
            whole = np.ones(count, np.bool_)
            for t in range(1, horizon):
                ended = (current == NONE) | self._terminated[current]
                current = np.where(ended, NONE, self._next[current])
                whole &= ended | (current != NONE)
                slots[:, t] = current
            found.append(slots[whole])
            missing -= int(whole.sum())
            empty_draws = 0 if whole.any() else empty_draws + 1
            if empty_draws == MAX_EMPTY_DRAWS:
                raise EmptyReplay(
                    f"no window of {horizon} steps can be valued; shorten the horizon or add episodes"
                )
        return np.concatenate(found)[:count]


def _image_column(
    rows: int,
    shape: tuple[int, ...],
    shift: int,
    device: torch.device,
    features: Features | None,
    place: int,
) -> ImageColumn | FeatureColumn:
    """Of the camera at that place; each draws its shifts from a seed of its own."""
    if features is None:
        return ImageColumn(rows, shape, shift, device)
    return FeatureColumn(rows, shape, shift, device, replace(features, seed=features.seed + place))
