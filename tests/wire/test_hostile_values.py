"""Messages that decode and yet say what cannot be: refused where they enter, by every field."""

import msgspec
import pytest

from serl_suite.wire.codec import Codec
from serl_suite.wire.messages import EpisodeOutcome, Evaluation, Step, Steps, WireError
from serl_suite.wire.spaces import ArraySpec

OUTCOME = EpisodeOutcome(success=True, episode_return=1.0, length=3)
HUGE = 2**64 - 1


@pytest.mark.parametrize(
    "message",
    [
        Evaluation(session_id="s", number=0, version=0, env_steps=0, episodes=[]),
        Evaluation(session_id="s", number=HUGE, version=0, env_steps=0, episodes=[OUTCOME]),
        Evaluation(session_id="s", number=0, version=HUGE, env_steps=0, episodes=[OUTCOME]),
        *(
            Steps(
                session_id="s",
                steps=[Step(**{"seq": 0, "episode": 0, "index": 0, "observation": {}, field: HUGE})],
            )
            for field in ("seq", "episode", "index", "policy_version")
        ),
    ],
    ids=["no episodes", "number", "version", "seq", "episode", "index", "policy_version"],
)
def test_a_value_out_of_range_is_no_message(message):
    codec = Codec()
    with pytest.raises(WireError):
        codec.decode([bytes(frame) for frame in codec.encode(message)])


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": (3,), "low": (0.0, 1.0)},
        {"shape": (-1,)},
        {"shape": (10**6, 10**4)},
        {"shape": (2,), "dtype": "object"},
    ],
    ids=["bounds", "negative", "huge", "dtype"],
)
def test_a_spec_that_cannot_be_is_refused(fields):
    data = msgspec.json.encode({"dtype": "float32"} | fields)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(data, type=ArraySpec)
