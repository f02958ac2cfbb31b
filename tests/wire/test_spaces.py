import gymnasium as gym
import msgspec
import numpy as np
import pytest
from gymnasium import spaces

from serl_suite.wire.messages import Position, Step, check_order, check_step
from serl_suite.wire.spaces import ArraySpec, BadStep, EnvSpec, UnsupportedSpace, env_spec


class Env:
    metadata = {"render_fps": 20}  # noqa: RUF012

    def __init__(self, observation, action=None):
        self.observation_space = observation
        self.action_space = action or spaces.Box(-1, 1, (2,))


IMAGE = spaces.Box(0, 255, (8, 8, 3), np.uint8)
CAMERAS = Env(
    spaces.Dict(wrist=IMAGE, front=IMAGE, z=spaces.Box(-1, 1, (2, 2)), a=spaces.Box(-np.inf, 3, (3,)))
)


def test_a_real_environment():
    spec = env_spec("Pendulum-v1", gym.make("Pendulum-v1"))
    assert (spec.state_keys, spec.state_dim, spec.action_dim, spec.rate_hz) == (("state",), 3, 1, 30.0)
    assert spec.action.low == -2.0
    assert spec.observation["state"].high == (1.0, 1.0, 8.0)


def test_keys_are_sorted_and_states_flattened_in_that_order():
    spec = env_spec("T", CAMERAS)
    assert spec.image_keys == ("front", "wrist")
    assert spec.state_keys == ("a", "z")
    observation = {**CAMERAS.observation_space.sample(), "a": np.arange(3, dtype=np.float32)}
    observation["z"] = np.array([[10, 11], [12, 13]], np.float32)
    assert spec.flatten(observation).tolist() == [0, 1, 2, 10, 11, 12, 13]
    assert spec.flatten(observation).dtype == np.float32


@pytest.mark.parametrize("convert", [msgspec.json, msgspec.msgpack])
def test_specs_survive_encoding_with_infinite_bounds(convert):
    spec = env_spec("T", CAMERAS)
    again = convert.decode(convert.encode(spec), type=EnvSpec)
    assert again == spec
    assert np.isneginf(again.observation["a"].low_array).all()
    assert again.observation["a"].high_array.tolist() == [3, 3, 3]


def test_nested_dicts_and_bare_arrays_are_wrapped():
    env = Env(
        spaces.Dict(robot=spaces.Dict(q=spaces.Box(-1, 1, (2,))), t=spaces.Box(-1, 1, (1,), np.float64))
    )
    spec = env_spec("T", env)
    assert sorted(spec.observation) == ["robot/q", "t"]
    wrapped = spec.wrap({"robot": {"q": [1, 2]}, "t": np.float32([3])})
    assert wrapped["t"].dtype == np.float64
    spec.check_observation(wrapped)
    bare = env_spec("T", Env(spaces.Box(-1, 1, (2,))))
    source = np.zeros(2, np.float32)
    wrapped = bare.wrap(source)
    source += 1
    assert wrapped["state"].tolist() == [0, 0]
    with pytest.raises(BadStep, match="lacks 't'"):
        spec.wrap({"robot": {"q": [1, 2]}})


@pytest.mark.parametrize(
    ("env", "remedy"),
    [
        (Env(spaces.Discrete(3)), "FlattenObservation"),
        (Env(spaces.Dict(a=spaces.Discrete(3))), "FlattenObservation"),
        (Env(spaces.Dict()), "empty"),
        (
            Env(spaces.Dict(front=spaces.Box(0, 255, (64, 64, 1), np.uint8))),
            r"front as \(64, 64, 1\) uint8.*RGB",
        ),
        (Env(spaces.Box(-1, 1, (2,)), spaces.Discrete(2)), "only Box"),
        (Env(spaces.Box(-1, 1, (2,)), spaces.Box(-np.inf, np.inf, (2,))), "RescaleAction"),
    ],
)
def test_unsupported_spaces_name_the_remedy(env, remedy):
    with pytest.raises(UnsupportedSpace, match=remedy):
        env_spec("T", env)


def test_difference_names_the_first_mismatch_in_words():
    spec = env_spec("T", CAMERAS)
    assert spec.difference(msgspec.structs.replace(spec, task="U")) is None
    small = ArraySpec(shape=(4, 4, 3), dtype="uint8")
    other = msgspec.structs.replace(spec, observation={**spec.observation, "wrist": small})
    assert spec.difference(other) == "observation 'wrist': (8, 8, 3) uint8 here, (4, 4, 3) uint8 there"
    fewer = msgspec.structs.replace(spec, observation={"a": spec.observation["a"]})
    assert spec.difference(fewer) == "observation 'front': (8, 8, 3) uint8 here, absent there"
    wide = ArraySpec(shape=(2,), dtype="float32", low=-2.0, high=1.0)
    assert "action bounds: low" in str(spec.difference(msgspec.structs.replace(spec, action=wide)))


def good(**changes):
    observation = {key: np.zeros(s.shape, s.dtype) for key, s in env_spec("T", CAMERAS).observation.items()}
    fields = {
        "seq": 4,
        "episode": 0,
        "index": 1,
        "observation": observation,
        "action": np.zeros(2, np.float32),
    }
    return Step(**{**fields, **changes})


def with_observation(**changes):
    return good(observation={**good().observation, **changes})


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        (with_observation(a=np.array([0, np.nan, 0], np.float32)), r"observation 'a' holds nan at \[1\]"),
        (with_observation(a=np.zeros(3)), r"observation 'a' is \(3,\) float64"),
        (with_observation(wrist=np.zeros((8, 9, 3), np.uint8)), "observation 'wrist'"),
        (with_observation(extra=np.zeros(1)), "unknown \\['extra'\\]"),
        (good(observation={}), "lacks"),
        (good(action=np.array([np.inf, 0], np.float32)), "action holds inf"),
        (good(action=None), "every other step carries one"),
        (good(index=0), "carries no action"),
        (good(reward=float("nan")), "reward"),
        (good(source="robot"), "source"),
        (good(episode=-1), "count from 0"),
    ],
)
def test_bad_steps_name_step_key_and_cause(step, cause):
    with pytest.raises(BadStep, match=f"step 4 .*{cause}"):
        check_step(env_spec("T", CAMERAS), step)


def test_a_good_step_passes():
    check_step(env_spec("T", CAMERAS), good())


@pytest.mark.parametrize(
    ("last", "episode", "index", "allowed"),
    [
        (None, 0, 0, True),
        (None, 0, 1, False),
        (Position(4, 0, 3, False), 0, 4, True),
        (Position(4, 0, 3, True), 0, 4, False),
        (Position(4, 0, 3, False), 0, 5, False),
        (Position(4, 0, 3, False), 1, 4, False),
        (Position(4, 0, 3, False), 1, 0, True),
        (Position(4, 0, 3, True), 2, 0, True),
        (Position(4, 1, 3, True), 1, 0, False),
    ],
)
def test_order_of_steps(last, episode, index, allowed):
    step = good(episode=episode, index=index)
    if allowed:
        check_order(last, step)
    else:
        with pytest.raises(BadStep, match="does not follow"):
            check_order(last, step)
