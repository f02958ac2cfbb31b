"""A step's cost travels with it: over the wire, into a file, out of a replay; steps without one are as they were."""

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from serl_suite.data.episodes import Episode, read_episode, write_episode
from serl_suite.data.mixing import mixed_sample
from serl_suite.data.replay import Replay
from serl_suite.wire.codec import Codec
from serl_suite.wire.messages import Step, check_step
from serl_suite.wire.spaces import ArraySpec, BadStep, EnvSpec

SPEC = EnvSpec(
    task="T",
    observation={"s": ArraySpec(shape=(1,), dtype="float32")},
    action=ArraySpec(shape=(1,), dtype="float32", low=-1.0, high=1.0),
)


def make_steps(costs):
    return [
        Step(
            seq=t, episode=0, index=t, observation={"s": np.array([t], np.float32)},
            action=np.array([0.5], np.float32) if t else None, reward=10.0 * t, cost=cost,
        )
        for t, cost in enumerate(costs)
    ]  # fmt: skip


def test_over_the_wire():
    codec = Codec()
    step, free = make_steps([0.0, 0.25])[1], Step(seq=0, episode=0, index=0, observation={})
    encoded = codec.encode_step(step)
    assert codec.decode_step(encoded).cost == 0.25
    assert b"cost" in bytes(encoded.header)
    assert b"cost" not in bytes(codec.encode_step(free).header)  # readable by whoever knows no costs


@pytest.mark.parametrize("costs", [[0.0, 0.0, 0.0], [0.0, 0.25, 0.0]])
def test_through_a_file(tmp_path, costs):
    path = tmp_path / "episode.parquet"
    write_episode(path, Episode(session_id="s", number=0, spec=SPEC, steps=make_steps(costs)))
    assert [step.cost for step in read_episode(path).steps] == costs
    assert ("cost" in pq.read_schema(path).names) == any(costs)


def test_a_cost_that_is_not_finite_is_refused():
    step = msgspec.structs.replace(make_steps([0.0, 0.0])[1], cost=float("nan"))
    with pytest.raises(BadStep, match="cost is nan"):
        check_step(SPEC, step)


def test_out_of_a_replay_with_the_transition_that_it_belongs_to():
    costs = [0.0, 0.0, 3.0, 0.0, 5.0]
    replays = [Replay(SPEC, 16, seed=seed, costs=True) for seed in (0, 1)]
    for replay in replays:
        for step in make_steps(costs):
            replay.insert("s", step)
    for batch in (replays[0].sample(64), mixed_sample(*replays, 64, 0.5)):
        t = batch.next_state[:, 0].long()
        torch.testing.assert_close(batch.cost, torch.tensor(costs)[t])
        torch.testing.assert_close(batch.reward, 10.0 * t.float())


def test_a_replay_keeps_costs_only_on_request():
    plain, keeping = Replay(SPEC, 100, seed=0), Replay(SPEC, 100, seed=0, costs=True)
    for replay in (plain, keeping):
        for step in make_steps([0.0, 1.0]):
            replay.insert("s", step)
    assert plain.sample(4).cost is None
    assert keeping.nbytes == plain.nbytes + 4 * 100
