"""RLPD on pictures: what the critics' loss trains, what stays, and that kept features are those of the pictures."""

import msgspec
import numpy as np
import pytest
import torch

from serl_suite.agents.errors import BadAgent
from serl_suite.agents.policy import Policy
from serl_suite.agents.registry import describe, make_policy
from serl_suite.agents.rlpd import RLPD, RLPDConfig
from serl_suite.data.replay import Replay
from serl_suite.networks.backbone import make_backbone
from serl_suite.networks.encoder_config import BadEncoder, EncoderConfig
from serl_suite.networks.weights import WeightsInfo, encode_weights
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SIDE = 16
IMAGE = ArraySpec(shape=(SIDE, SIDE, 3), dtype="uint8")
SPEC = EnvSpec(
    task="T",
    observation={"pose": ArraySpec(shape=(3,), dtype="float32"), "front": IMAGE, "wrist": IMAGE},
    action=ArraySpec(shape=(2,), dtype="float32", low=-1.0, high=1.0),
)
CNN = RLPDConfig(
    hidden=(32, 32),
    batch_size=16,
    num_critics=3,
    actor_period=2,
    encoder=EncoderConfig(width=16, embeddings=2),
)
FROZEN = msgspec.structs.replace(
    CNN, encoder=EncoderConfig(backbone="resnet10", weights="random", frozen=True, width=16, embeddings=2)
)


def observation(rng):
    pictures = {key: rng.integers(0, 256, IMAGE.shape, np.uint8) for key in ("front", "wrist")}
    return {"pose": rng.normal(size=3).astype(np.float32), **pictures}


def filled(features=None, shift=4, seed=0):
    replay, rng = Replay(SPEC, 64, seed=seed, shift=shift, features=features), np.random.default_rng(seed)
    for index in range(40):
        action = rng.uniform(-1, 1, 2).astype(np.float32) if index else None
        replay.insert(
            "a", Step(seq=index, episode=0, index=index, observation=observation(rng), action=action)
        )
    return replay


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_the_critics_loss_alone_trains_the_encoder():
    agent, replay = RLPD(CNN, SPEC, seed=0), filled()
    first = agent.state_dict()
    agent.update(replay.sample(16))
    second = agent.state_dict()
    agent._critic_loss = lambda *_: (sum(p.sum() * 0.0 for p in agent._critic_parameters), {})
    agent._critic_optimiser.param_groups[0]["lr"] = 0.0
    agent.update(replay.sample(16))
    third = agent.state_dict()
    trained = {n for n in first if n.startswith("policy.encoder.") and "normaliser" not in n}
    assert trained <= moved(first, second), "backbone and heads learn from a critic's update"
    assert not trained & moved(second, third), "and not from the actor's"
    assert any(n.startswith("policy.actor.") for n in moved(second, third))


def test_a_frozen_backbone_stays_and_is_not_published():
    agent, replay = RLPD(FROZEN, SPEC, seed=0), filled()
    before = {n: p.clone() for n, p in agent.encoder.backbone.named_parameters()}
    for _ in range(2):
        agent.update(replay.sample(16))
    after = dict(agent.encoder.backbone.named_parameters())
    assert before
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any("backbone" in name for name in [*agent.policy_state(), *agent.state_dict()])


@pytest.mark.parametrize("config", [CNN, FROZEN], ids=["trained", "frozen"])
def test_an_actor_acts_as_the_learner_does(config):
    agent, policy = RLPD(config, SPEC, seed=3), Policy(config, SPEC, seed=3)
    agent.update(filled().sample(16))
    policy.load(agent.policy_state())
    seen = observation(np.random.default_rng(5))
    action = policy.act(seen, explore=False)
    assert np.allclose(action, agent.act(seen, explore=False), atol=1e-6)
    other = {**seen, "wrist": 255 - seen["wrist"]}
    assert not np.allclose(action, policy.act(other, explore=False), atol=1e-6), "the pictures matter"


@pytest.mark.parametrize("shift", [0, 4])
def test_kept_features_are_those_of_the_same_crops(shift):
    """Frozen-feature replay against the plain path: the same transitions, the same shifts."""
    config = msgspec.structs.replace(FROZEN, encoder=msgspec.structs.replace(FROZEN.encoder, stored_shifts=5))
    agent = RLPD(config, SPEC, seed=0)
    kept, plain = filled(agent.kept_features(), shift), filled(None, shift)
    draw = kept.draw(16)
    offsets = [np.random.default_rng(agent.kept_features().seed + place) for place in range(2)]
    shifts = np.stack([rng.integers(-shift, shift + 1, size=(40, 5, 2)) for rng in offsets])
    views = np.stack(
        [[shifts[c, rows, draw.views[c, j, :, 0]] for j, rows in enumerate(draw.rows)] for c in range(2)]
    )
    ours = kept.gather(*map(torch.from_numpy, draw))
    theirs = plain.gather(torch.from_numpy(draw.rows), torch.from_numpy(views))
    assert ours.images["front"].dtype == torch.float32
    for mine, seen in zip(agent.see(ours), agent.see(theirs), strict=True):
        assert torch.allclose(mine, seen, rtol=1e-4, atol=1e-5)


def test_a_replay_of_features_comes_back_the_same():
    config = msgspec.structs.replace(FROZEN, encoder=msgspec.structs.replace(FROZEN.encoder, stored_shifts=2))
    one, two = (filled(RLPD(config, SPEC, seed=0).kept_features()).sample(8) for _ in range(2))
    assert all(torch.equal(one.images[key], two.images[key]) for key in one.images)


def test_resumed_is_uninterrupted():
    agent, again = RLPD(CNN, SPEC, seed=0), RLPD(CNN, SPEC, seed=9)
    ours, theirs = filled(), filled()
    for _ in range(3):
        agent.update(ours.sample(16))
        theirs.sample(16)
    again.load_state_dict(agent.state_dict())
    for _ in range(3):
        agent.update(ours.sample(16)), again.update(theirs.sample(16))
    one, two = agent.state_dict(), again.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frozen": True}, "needs weights"),
        ({"stored_shifts": 2}, "backbone is frozen"),
        ({"embeddings": 0}, "positive"),
        ({"shift": -1}, "0 or more"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(BadEncoder, match=message):
        EncoderConfig(**settings)


def test_an_actor_with_other_weights_of_a_frozen_backbone_refuses(tmp_path, monkeypatch):
    """Each machine has a file of that name in its own folder."""
    config = msgspec.structs.replace(
        CNN, encoder=EncoderConfig(backbone="cnn", weights="pick", frozen=True, width=16)
    )
    for seed, machine in enumerate(("learner", "actor")):
        backbone = make_backbone(EncoderConfig(), SIDE, torch.Generator().manual_seed(seed))
        info = WeightsInfo(backbone="cnn", side=SIDE, trained={}, source={})
        (tmp_path / machine).mkdir()
        (tmp_path / machine / "pick.safetensors").write_bytes(encode_weights(backbone, info))
    monkeypatch.setenv("SERL_WEIGHTS", str(tmp_path / "learner"))
    description = describe("rlpd", config)
    make_policy(description, SPEC, seed=0)
    monkeypatch.setenv("SERL_WEIGHTS", str(tmp_path / "actor"))
    with pytest.raises(BadAgent, match=r"weights pick are other ones .*sha256.*copy the learner's file"):
        make_policy(description, SPEC, seed=0)
    monkeypatch.delenv("SERL_WEIGHTS")
    with pytest.raises(BadEncoder, match="SERL_WEIGHTS is not set"):
        make_policy(description, SPEC, seed=0)


@pytest.mark.parametrize("config", [CNN, FROZEN], ids=["trained", "frozen"])
def test_each_picture_goes_through_the_backbone_once_an_update(config):
    """16 transitions, before and after, of two cameras: 64 pictures, whether or not the actor moves as well."""
    agent, replay, seen = RLPD(config, SPEC, seed=0), filled(), []
    agent.encoder.backbone.register_forward_hook(lambda _, pictures, __: seen.append(len(pictures[0])))
    for updates in (1, 2):
        agent.update(replay.sample(16))
        assert sum(seen) == updates * 16 * 2 * 2
