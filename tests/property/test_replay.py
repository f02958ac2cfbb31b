"""What incumbents get wrong about replay, each as a property of ours. Every frame carries its own number."""

import threading

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serl_suite.data.mixing import mixed_sample
from serl_suite.data.replay import EmptyReplay, Replay
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SIDE = 12
STATE = EnvSpec(
    task="count",
    observation={"number": ArraySpec(shape=(1,), dtype="float32")},
    action=ArraySpec(shape=(1,), dtype="float32", low=-1000.0, high=1000.0),
)
IMAGE = ArraySpec(shape=(SIDE, SIDE, 3), dtype="uint8")
PIXELS = EnvSpec(
    task="count",
    observation={**STATE.observation, "front": IMAGE, "wrist": IMAGE},
    action=STATE.action,
)


class Recorder:
    """Makes the steps of one session; the n-th frame of all sessions observes n."""

    def __init__(self, session_id, numbers, pixels=False):
        self.session_id, self.numbers, self.pixels = session_id, numbers, pixels
        self.seq, self.episode, self.index, self.ended = -1, -1, 0, True

    def next(self, end=None, **fields):
        self.seq += 1
        self.episode, self.index = (self.episode + 1, 0) if self.ended else (self.episode, self.index + 1)
        self.ended = self.index > 0 and end is not None
        number = len(self.numbers)
        self.numbers.append((self.session_id, self.episode, self.index))
        observation = {"number": np.array([number], np.float32)}
        if self.pixels:
            image = np.full(IMAGE.shape, number % 251, np.uint8)
            observation |= {"front": image, "wrist": 255 - image}
        return Step(
            seq=self.seq,
            episode=self.episode,
            index=self.index,
            observation=observation,
            action=np.array([number], np.float32) if self.index else None,
            reward=float(number),
            terminated=self.ended and end == "terminated",
            truncated=self.ended and end == "truncated",
            **fields,
        )


def drawn(replay, rounds=40):
    """Every transition that sampling yields: {(number before, number after, mask)}."""
    found = set()
    for _ in range(rounds):
        batch = replay.sample(64)
        before, after = batch.state[:, 0].tolist(), batch.next_state[:, 0].tolist()
        assert batch.reward.tolist() == after, "the reward belongs to the observation it led to"
        assert np.allclose(batch.action[:, 0].numpy() * 1000.0, after, atol=1e-3), "and so does the action"
        found |= set(zip(map(int, before), map(int, after), map(int, batch.mask.tolist()), strict=True))
    return found


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(["step"] * 6 + ["terminated", "truncated", "lost", "resent"])
    ),
    min_size=4,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(4, 24))
def test_exactly_the_whole_transitions_are_sampled(events, capacity):
    """1, 2, 3: whatever ends, gaps, interleaved actors and overwriting do, against a plain model of the ring."""
    replay, numbers, recorders, sent, stored = Replay(STATE, capacity, seed=0), [], {}, {}, []
    for session_id, event in events:
        recorder = recorders.setdefault(session_id, Recorder(session_id, numbers))
        if event == "resent" and session_id in sent:
            replay.insert(session_id, sent[session_id])
            continue
        step = recorder.next(end=event if event in ("terminated", "truncated") else None)
        if event != "lost":
            sent[session_id] = step
            replay.insert(session_id, step)
            stored.append((session_id, step))
    stored = stored[-capacity:]
    place = {(session_id, step.episode, step.index): step for session_id, step in stored}
    expected = set()
    for session_id, step in stored:
        before = place.get((session_id, step.episode, step.index - 1))
        if before is not None:
            expected.add((int(before.reward), int(step.reward), int(not step.terminated)))
    assert len(replay) == len(expected)
    if expected:
        assert drawn(replay) == expected
    else:
        with pytest.raises(EmptyReplay, match="no whole transition"):
            replay.sample(1)


@given(st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_a_truncated_step_bootstraps_from_its_own_last_observation(first, second):
    """1, 3: a time limit is no terminal, and the next episode's first state is nobody's successor."""
    replay, recorder = Replay(STATE, 64, seed=0), Recorder("a", [])
    for length, end in ((first, "truncated"), (second, "terminated")):
        for index in range(length + 1):
            replay.insert("a", recorder.next(end=end if index == length else None))
    found = drawn(replay, 20)
    assert (first - 1, first, 1) in found, "truncated: its own observation, mask 1"
    last = first + 1 + second
    assert (last - 1, last, 0) in found, "terminated: mask 0"
    assert not any(after == first + 1 for _, after, _ in found), "a reset is never a next state"
    assert not any(before in (first, last) for before, _, _ in found), "nothing starts where an episode ended"


@given(st.lists(st.booleans(), min_size=3, max_size=40))
@settings(max_examples=40, deadline=None)
def test_intervention_segments_are_never_spliced(intervened):
    """2: a replay fed the intervened steps only pairs each with the frame right before it, in every key."""
    replay, recorder, previous = Replay(PIXELS, 128, seed=0, shift=0), Recorder("a", [], pixels=True), None
    expected = set()
    for intervention in intervened:
        step = recorder.next(intervention=intervention)
        if intervention and step.index > 0:
            replay.insert("a", step, previous=previous)
            expected.add((step.seq - 1, step.seq, 1))
        previous = step
    assert len(replay) == len(expected) == replay.counts["intervention"]
    if not expected:
        return
    assert drawn(replay, 20) == expected
    batch = replay.sample(32)
    for state, images in ((batch.state, batch.images), (batch.next_state, batch.next_images)):
        for number, front, wrist in zip(state[:, 0], images["front"], images["wrist"], strict=True):
            assert front.unique().tolist() == [int(number) % 251], "the image is of the state's own frame"
            assert wrist.unique().tolist() == [255 - int(number) % 251]


def test_sampling_while_others_insert_never_tears_a_transition():
    """4: three threads insert over a small ring while the main thread samples; flags are kept as given."""
    replay, numbers, guard, done = Replay(PIXELS, 48, seed=0), [], threading.Lock(), threading.Event()

    def act(session_id):
        recorder = Recorder(session_id, numbers, pixels=True)
        while not done.is_set():
            with guard:
                step = recorder.next(end="truncated" if recorder.index == 9 else None)
            replay.insert(session_id, step)

    threads = [threading.Thread(target=act, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    checked = 0
    try:
        while checked < 6000:
            if len(replay) < 8:
                continue
            batch = replay.sample(64)
            before, after = batch.state[:, 0].int().tolist(), batch.next_state[:, 0].int().tolist()
            fronts = [batch.images["front"].flatten(1), batch.next_images["front"].flatten(1)]
            for i, (old, new) in enumerate(zip(before, after, strict=True)):
                (session, episode, index), (session_, episode_, index_) = numbers[old], numbers[new]
                assert (session, episode, index + 1) == (session_, episode_, index_)
                assert fronts[0][i].unique().tolist() == [old % 251]
                assert fronts[1][i].unique().tolist() == [new % 251]
            checked += 64
    finally:
        done.set()
        for thread in threads:
            thread.join()


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["policy", "scripted", "human"])), min_size=1, max_size=60
    )
)
@settings(max_examples=40, deadline=None)
def test_source_and_intervention_stay_with_their_step(labels):
    """4: counted over exactly the frames that the ring still holds."""
    replay, recorder = Replay(STATE, 16, seed=0), Recorder("a", [])
    replay.insert("a", recorder.next())
    for intervention, source in labels:
        replay.insert("a", recorder.next(intervention=intervention, source=source))
    kept = labels[-15:]
    counts = replay.counts
    assert counts.pop("intervention") == sum(intervention for intervention, _ in kept)
    assert counts == {s: sum(source == s for _, source in kept) for s in ("policy", "scripted", "human")}


def filled(spec, count, seed, pixels=False):
    replay, recorder = Replay(spec, count + 1, seed=seed), Recorder("a", [], pixels)
    for _ in range(count + 1):
        replay.insert("a", recorder.next())
    return replay


def test_sampling_follows_its_own_seed():
    """5: the same seed the same batches, whatever the global generators do; a saved state goes on alike."""
    one, two, other = filled(STATE, 200, 7), filled(STATE, 200, 7), filled(STATE, 200, 8)
    first = one.sample(64).state
    np.random.seed(1)
    assert (two.sample(64).state == first).all()
    assert (other.sample(64).state != first).any()
    two.set_rng_state(one.rng_state())
    assert (one.sample(64).state == two.sample(64).state).all()


def test_transitions_are_drawn_uniformly():
    """5: chi-squared over 50 transitions, 20,000 draws; 49 degrees of freedom, bound at p = 1e-5."""
    replay = filled(STATE, 50, 3)
    counts = np.zeros(51)
    for _ in range(20):
        np.add.at(counts, replay.sample(1000).state[:, 0].long().numpy(), 1)
    assert counts[50] == 0
    assert ((counts[:50] - 400.0) ** 2 / 400.0).sum() < 104.0


def test_every_image_has_a_shift_of_its_own():
    """5: cameras, samples and the two sides of a transition are shifted independently, over all 81 offsets."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    image = np.stack([y, x, 0 * x], -1).astype(np.uint8)
    replay, recorder = Replay(PIXELS, 8, seed=0), Recorder("a", [])
    for _ in range(8):
        step = recorder.next()
        step.observation.update(front=image, wrist=image)
        replay.insert("a", step)
    batch, centre = replay.sample(8000), SIDE // 2
    shifts = [
        images[key][:, centre, centre, :2].numpy().astype(int) - centre
        for images in (batch.images, batch.next_images)
        for key in ("front", "wrist")
    ]
    for shift in shifts:
        assert {tuple(s) for s in shift} == {(dy, dx) for dy in range(-4, 5) for dx in range(-4, 5)}
    axes = np.concatenate(shifts, 1).T
    correlation = np.corrcoef(axes) - np.eye(len(axes))
    assert np.abs(correlation).max() < 0.06  # independent draws: 0.011 standard deviation


@given(st.integers(2, 40), st.integers(1, 40), st.integers(0, 39))
@settings(max_examples=40, deadline=None)
def test_restarts_lose_nothing_and_double_nothing(before, after, kept):
    """7: a restarted actor's steps all arrive; a queue resent in full to the learner is taken once."""
    replay, numbers = Replay(STATE, 256, seed=0), []
    first, second = Recorder("first", numbers), Recorder("second", numbers)
    queue = [first.next() for _ in range(before)]
    for step in [*queue, *queue[min(kept, before) :], *queue]:
        replay.insert("first", step)
    assert len(replay) == before - 1
    assert replay.duplicates == 2 * before - min(kept, before)
    for _ in range(after):
        replay.insert("second", second.next())
    assert len(replay) == before - 1 + after - 1


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["terminated", "truncated"])), min_size=1, max_size=6),
       st.integers(1, 6))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_chunks_reach_every_terminal_and_cross_no_truncation(episodes, horizon):
    """8: a window is drawn for each start whose future is known; past a terminal it is padded."""
    replay, recorder, expected = Replay(STATE, 256, seed=0), Recorder("a", []), {}
    for length, end in episodes:
        start = len(recorder.numbers)
        for index in range(length + 1):
            replay.insert("a", recorder.next(end=end if index == length else None))
        for t in range(length):
            real = min(horizon, length - t)
            if real == horizon or end == "terminated":
                reaches_end = end == "terminated" and t + real == length
                expected[start + t] = (
                    list(range(start + t + 1, start + t + real + 1)),
                    0.0 if reaches_end else 1.0,
                )
    if not expected:
        with pytest.raises(EmptyReplay, match="window"):
            replay.sample_chunks(1, horizon)
        return
    chunks, seen = replay.sample_chunks(64 * len(expected), horizon), set()
    for i, start in enumerate(chunks.state[:, 0].int().tolist()):
        numbers, mask = expected[start]
        seen.add(start)
        assert chunks.length[i] == len(numbers)
        assert chunks.reward[i].tolist() == numbers + [0.0] * (horizon - len(numbers))
        assert np.allclose(chunks.action[i, :, 0] * 1000.0, chunks.reward[i], atol=1e-3)
        assert chunks.mask[i] == mask
        assert chunks.next_state[i, 0] == numbers[-1]
    assert seen == set(expected)


class Count(gymnasium.Env):
    """Observes (episode, steps in it, action taken); ends after 3 steps, by terminal and time limit in turn."""

    observation_space = gymnasium.spaces.Box(-1000, 1000, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1000, 1000, (1,), np.float32)

    def __init__(self):
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return np.array([self.episode, 0, 0], np.float32), {}

    def step(self, action):
        self.steps += 1
        ended, odd = self.steps == 3, self.episode % 2 == 1
        observation = np.array([self.episode, self.steps, action[0]], np.float32)
        return observation, float(self.steps), ended and not odd, ended and odd, {}


def test_the_autoreset_step_of_a_vector_environment_is_no_transition():
    """9: fed as it comes, index counting on through the autoreset, nothing crosses episodes."""
    envs = gymnasium.vector.SyncVectorEnv([Count, Count])
    spec = EnvSpec(
        task="count",
        observation={"state": ArraySpec(shape=(3,), dtype="float32")},
        action=ArraySpec(shape=(1,), dtype="float32", low=-1000.0, high=1000.0),
    )
    replay, (observations, _) = Replay(spec, 256, seed=0), envs.reset()
    for i in range(2):
        replay.insert(f"env {i}", Step(seq=0, episode=0, index=0, observation={"state": observations[i]}))
    for t in range(1, 40):
        actions = np.full((2, 1), t, np.float32)
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        for i in range(2):
            replay.insert(
                f"env {i}",
                Step(
                    seq=t, episode=0, index=t, observation={"state": observations[i].copy()}, action=actions[i],
                    reward=float(rewards[i]), terminated=bool(terminated[i]), truncated=bool(truncated[i]),
                ),
            )  # fmt: skip
    envs.close()
    assert len(replay) == 2 * 30, "39 steps, of which 9 are autoresets"
    batch = replay.sample(2000)
    before, after = batch.state, batch.next_state
    assert (before[:, 0] == after[:, 0]).all(), "both states are of one episode"
    assert (before[:, 1] + 1 == after[:, 1]).all()
    assert (after[:, 2] - batch.action[:, 0] * 1000.0).abs().max() < 1e-3, "the action was executed"
    assert (batch.reward == after[:, 1]).all()
    assert (batch.mask == 1.0 - ((after[:, 1] == 3) & (after[:, 0] % 2 == 0)).float()).all()


def test_mixed_batches_take_their_share_and_fall_back_to_what_there_is():
    online, demos, nothing = filled(STATE, 50, 0), Replay(STATE, 64, seed=1), Replay(STATE, 64, seed=2)
    recorder = Recorder("demo", [None] * 500)
    for _ in range(20):
        demos.insert("demo", recorder.next())
    batch = mixed_sample(online, demos, 256, 0.5)
    assert (batch.state[:128] < 500).all()
    assert (batch.state[128:] >= 500).all()
    assert (online.sampled, demos.sampled) == (128, 128)
    assert (mixed_sample(nothing, demos, 32, 0.5).state >= 500).all()
    assert (mixed_sample(online, nothing, 32, 0.5).state < 500).all()
    assert (mixed_sample(online, None, 32, 0.5).state < 500).all()
    with pytest.raises(EmptyReplay):
        mixed_sample(nothing, None, 32, 0.5)
