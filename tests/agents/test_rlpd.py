"""RLPD against a plain double-precision reading of its equations, and the promises around its state."""

import copy

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from serl_suite.agents.errors import BadAgent
from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.data.checkpoint import load_checkpoint, save_checkpoint
from serl_suite.data.mixing import mixed_sample
from serl_suite.data.replay import Batch, Replay
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

STATE_DIM, ACTION_DIM = 5, 2
SPEC = EnvSpec(
    task="made up",
    observation={"s": ArraySpec(shape=(STATE_DIM,), dtype="float32")},
    action=ArraySpec(shape=(ACTION_DIM,), dtype="float32", low=-1.0, high=1.0),
)
SMALL = RLPDConfig(hidden=(32, 32), batch_size=64, actor_period=2)


def make_batch(size=64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Batch(
        state=torch.randn(size, STATE_DIM, generator=g),
        images={},
        action=torch.rand(size, ACTION_DIM, generator=g) * 2 - 1,
        reward=torch.rand(size, generator=g).round(),
        mask=torch.rand(size, generator=g).round(),
        next_state=torch.randn(size, STATE_DIM, generator=g),
        next_images={},
    )


def fill(replay, seed, episodes=8, length=12):
    rng, seq = np.random.default_rng(seed), 0
    for episode in range(episodes):
        for index in range(length + 1):
            observation = {"s": rng.normal(size=STATE_DIM).astype(np.float32)}
            action = rng.uniform(-1, 1, ACTION_DIM).astype(np.float32) if index else None
            ended, odd = index == length, episode % 2 == 1
            step = Step(
                seq=seq, episode=episode, index=index, observation=observation, action=action,
                reward=float(ended), terminated=ended and odd, truncated=ended and not odd,
            )  # fmt: skip
            replay.insert("a", step)
            seq += 1
    return replay


class PlainMLP(nn.Module):
    """One member, from torch's own layers, with the member's weights."""

    def __init__(self, tensors, prefix, member, hidden, layer_norm):
        super().__init__()
        layers = []
        for i in range(len(hidden) + 1):
            get = lambda name, i=i: tensors[f"{prefix}.layers.{i}.{name}"][member].double()  # noqa: E731
            weight = get("weight")
            layers.append(nn.Linear(*weight.shape).double())
            layers[-1].load_state_dict({"weight": weight.T, "bias": get("bias")[0]})
            if i < len(hidden):
                if layer_norm:
                    layers.append(nn.LayerNorm(weight.shape[1]).double())
                    layers[-1].load_state_dict({"weight": get("gain")[0], "bias": get("shift")[0]})
                layers.append(nn.ReLU())
        self.net = nn.Sequential(*layers)

    def forward(self, *inputs):
        return self.net(torch.cat(inputs, -1))

    def gradients(self):
        """In the order of the ensemble's parameters: each layer's, by name (bias, gain, shift, weight)."""
        grads = []
        for i, layer in enumerate(self.net):
            if isinstance(layer, nn.Linear):
                norm = self.net[i + 1] if i + 1 < len(self.net) else None
                grads.append(layer.bias.grad[None])
                if isinstance(norm, nn.LayerNorm):
                    grads += [norm.weight.grad[None], norm.bias.grad[None]]
                grads.append(layer.weight.grad.T)
        return grads


def sample_plain(actor, state, noise):
    mean, log_std = actor(state).chunk(2, -1)
    log_std = log_std.clamp(-10.0, 2.0)
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))
    action = torch.tanh(mean + log_std.exp() * noise)
    return action, squashed.log_prob(action.clamp(-1 + 1e-12, 1 - 1e-12)).sum(-1)


CONFIGS = [
    RLPDConfig(hidden=(32, 16), actor_period=1),
    RLPDConfig(hidden=(16,), actor_period=1, num_critics=4, critic_subset=2, backup_entropy=True),
    RLPDConfig(
        hidden=(16, 16), actor_period=1, num_critics=3, critic_subset=1, layer_norm=False, discount=0.9
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_one_update_is_the_papers(config):
    """Losses, the gradients of all three optimisations (as Adam's first moments) and the targets."""
    agent, batch = RLPD(config, SPEC, seed=3), make_batch()
    agent.fit_normaliser(np.random.default_rng(0).normal(2.0, 3.0, (100, STATE_DIM)).astype(np.float32))
    for _ in range(3):
        agent.update(make_batch(seed=9))  # away from the start, where the target critic equals the critic
    before = agent.state_dict()
    metrics = agent.update(batch)
    after = agent.state_dict()

    generator = torch.Generator()
    generator.set_state(before["generator"])
    noise = [torch.randn(64, ACTION_DIM, generator=generator).double()]
    subset = list(range(config.num_critics))
    if config.critic_subset < config.num_critics:
        subset = torch.randperm(config.num_critics, generator=generator)[: config.critic_subset].tolist()
    noise.append(torch.randn(64, ACTION_DIM, generator=generator).double())

    plain = [config.hidden, config.layer_norm]
    actor = PlainMLP(before, "policy.actor.net", 0, *plain)
    critics = [PlainMLP(before, "critic", k, *plain) for k in range(config.num_critics)]
    targets = [PlainMLP(before, "target_critic", k, *plain) for k in range(config.num_critics)]
    log_alpha = before["log_temperature"].double().requires_grad_()
    mean, scale = (before[f"policy.encoder.normaliser.{name}"].double() for name in ("mean", "scale"))
    state, next_state = ((s.double() - mean) * scale for s in (batch.state, batch.next_state))

    with torch.no_grad():
        next_action, next_log_p = sample_plain(actor, next_state, noise[0])
        value = torch.stack([targets[k](next_state, next_action)[:, 0] for k in subset]).min(0).values
        value = value - config.backup_entropy * log_alpha.exp() * next_log_p
        y = batch.reward + config.discount * batch.mask * value
    q = torch.stack([critic(state, batch.action.double())[:, 0] for critic in critics])
    critic_loss = ((q - y) ** 2).mean(1).sum()
    critic_loss.backward()
    assert metrics["critic/loss"].item() == pytest.approx(critic_loss.item() / config.num_critics, rel=1e-5)
    check_moments(before, after, "critic_optimiser", [c.gradients() for c in critics])

    for name, tensor in after.items():
        if name.startswith("target_critic."):
            expected = torch.lerp(before[name], after[name.removeprefix("target_")], config.tau)
            torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-8)

    critics = [PlainMLP(after, "critic", k, *plain) for k in range(config.num_critics)]
    action, log_p = sample_plain(actor, state, noise[1])
    q = torch.stack([critic(state, action)[:, 0] for critic in critics]).mean(0)
    actor_loss = (log_alpha.exp().detach() * log_p - q).mean()
    temperature_loss = -log_alpha.exp() * (log_p.detach().mean() - ACTION_DIM / 2)
    (actor_loss + temperature_loss).backward()
    assert metrics["actor/loss"].item() == pytest.approx(actor_loss.item(), rel=1e-4)
    check_moments(before, after, "actor_optimiser", [actor.gradients()], [log_alpha.grad])


def check_moments(before, after, optimiser, members, further=()):
    gradients = [torch.stack(tensors) for tensors in zip(*members, strict=True)] + list(further)
    for place, gradient in enumerate(gradients):
        name = f"{optimiser}.{place}.exp_avg"
        measured = (after[name].double() - 0.9 * before[name].double()) / 0.1
        assert torch.allclose(
            measured, gradient, rtol=1e-3, atol=1e-5 * max(1.0, float(gradient.abs().max()))
        ), name


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 12))
def test_critic_only_updates_leave_the_actor_alone(period):
    """Zero gradients pushed through Adam would still move it by its momentum."""
    agent = RLPD(RLPDConfig(hidden=(16,), actor_period=period), SPEC, seed=0)

    def actor_side():
        return {
            k: v
            for k, v in agent.state_dict().items()
            if k.startswith(("policy", "actor", "log_temperature"))
        }

    last = None
    for update in range(1, 2 * period + 1):
        metrics = agent.update(make_batch(seed=update))
        now = actor_side()
        moved = last is not None and any(not torch.equal(now[k], last[k]) for k in now)
        assert moved == ("actor/loss" in metrics) == (update % period == 0)
        last = now


def test_the_target_takes_its_subset_without_replacement():
    """Targets that are 0, 1 and 2 everywhere: the minimum over two distinct ones is never 2."""
    config = RLPDConfig(hidden=(16,), num_critics=3, critic_subset=2, tau=1e-12, actor_period=10_000)
    agent = RLPD(config, SPEC, seed=0)
    with torch.no_grad():
        agent.target_critic.layers[-1]["weight"].zero_()
        agent.target_critic.layers[-1]["bias"].copy_(torch.arange(3.0).view(3, 1, 1))
    batch = make_batch()._replace(reward=torch.zeros(64), mask=torch.ones(64))
    minima = [agent.update(batch)["critic/target"].item() / config.discount for _ in range(300)]
    counts = np.bincount(np.round(minima).astype(int), minlength=3)
    assert counts[2] == 0
    assert 150 < counts[0] < 250, "0 is in two of three pairs"


def test_a_terminal_has_no_future_and_a_truncation_has_one():
    agent, batch = RLPD(SMALL, SPEC, seed=0), make_batch()
    ended = batch._replace(mask=torch.zeros(64), next_state=batch.next_state * 1e6)
    assert agent.update(ended)["critic/target"].item() == pytest.approx(batch.reward.mean().item(), abs=1e-6)
    going_on = batch._replace(mask=torch.ones(64))
    assert agent.update(going_on)["critic/target"].item() != pytest.approx(
        batch.reward.mean().item(), abs=1e-6
    )


def train(agent, online, demos, updates):
    for _ in range(updates):
        agent.update(mixed_sample(online, demos, SMALL.batch_size, 0.5))


@pytest.mark.parametrize("config", [SMALL, RLPDConfig(hidden=(16,), num_critics=4)])
def test_resumed_equals_uninterrupted(tmp_path, config):
    """500 updates through one process' memory, or 250, a file, and 250 in an agent of another seed: bitwise."""
    agent, online, demos = (
        RLPD(config, SPEC, seed=0),
        fill(Replay(SPEC, 90, seed=1), 1),
        fill(Replay(SPEC, 200, seed=2), 2),
    )
    agent.fit_normaliser(demos.states())
    train(agent, online, demos, 250)
    save_checkpoint(tmp_path / "c", agent.state_dict(), {"rng": [online.rng_state(), demos.rng_state()]})
    train(agent, online, demos, 250)

    tensors, meta = load_checkpoint(tmp_path / "c")
    again = RLPD(config, SPEC, seed=99)
    online_again, demos_again = fill(Replay(SPEC, 90, seed=5), 1), fill(Replay(SPEC, 200, seed=6), 2)
    again.load_state_dict(tensors)
    for replay, state in zip((online_again, demos_again), meta["rng"], strict=True):
        replay.set_rng_state(state)
    train(again, online_again, demos_again, 250)

    one, two = agent.state_dict(), again.state_dict()
    assert one.keys() == two.keys()
    assert agent.updates == again.updates == 500
    for name in one:
        assert torch.equal(one[name], two[name]), name
    observation = {"s": np.ones(STATE_DIM, np.float32)}
    assert (agent.act(observation, explore=True) == again.act(observation, explore=True)).all()


@pytest.mark.parametrize(
    "other",
    [
        RLPD(RLPDConfig(hidden=(32,)), SPEC, seed=0),
        RLPD(msgspec.structs.replace(SMALL, num_critics=3), SPEC, seed=0),
        RLPD(msgspec.structs.replace(SMALL, layer_norm=False), SPEC, seed=0),
        RLPD(
            SMALL,
            msgspec.structs.replace(SPEC, observation={"s": ArraySpec(shape=(6,), dtype="float32")}),
            seed=0,
        ),
    ],
    ids=["hidden", "critics", "layer norm", "spaces"],
)
def test_the_state_of_another_agent_is_refused_and_changes_nothing(other):
    agent = RLPD(SMALL, SPEC, seed=0)
    before = agent.state_dict()
    with pytest.raises(
        BadAgent, match=r"is (\(.*\)|absent) there and (\(.*\)|absent) here.*or begin a new run"
    ):
        agent.load_state_dict(other.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.state_dict().items())


def test_a_saved_state_is_a_copy():
    agent = RLPD(SMALL, SPEC, seed=0)
    state, policy = agent.state_dict(), agent.policy_state()
    kept = copy.deepcopy(state), copy.deepcopy(policy)
    for seed in range(2):
        agent.update(make_batch(seed=seed))
    assert all(torch.equal(state[k], kept[0][k]) for k in state)
    assert all((policy[k] == kept[1][k]).all() for k in policy)


def test_the_same_seed_is_the_same_agent():
    one, two, other = (RLPD(SMALL, SPEC, seed=seed) for seed in (1, 1, 2))
    torch.manual_seed(0)
    for agent in (one, two, other):
        for seed in range(4):
            agent.update(make_batch(seed=seed))
    states = [agent.state_dict() for agent in (one, two, other)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_critics": 2, "critic_subset": 3}, "critic_subset is 3"),
        ({"demo_fraction": 1.5}, "demo_fraction"),
        ({"discount": 1.0}, "discount"),
        ({"hidden": ()}, "hidden"),
        ({"actor_period": 0}, "actor_period"),
        ({"utd": 0.0}, "utd"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, message):
    with pytest.raises(BadAgent, match=message):
        RLPDConfig(**fields)


@pytest.mark.parametrize("shapes", [((8, 8, 3), (16, 16, 3)), ((8, 12, 3), (8, 12, 3))])
def test_pictures_of_several_shapes_are_refused_with_a_remedy(shapes):
    pictures = {f"camera{i}": ArraySpec(shape=shape, dtype="uint8") for i, shape in enumerate(shapes)}
    spec = EnvSpec(task="T", observation={**SPEC.observation, **pictures}, action=SPEC.action)
    with pytest.raises(BadAgent, match="crop and resize them alike"):
        RLPD(SMALL, spec, seed=0)


@pytest.mark.gpu
def test_the_device_computes_what_the_host_does():
    """The same update from the same state, noise apart: states are loaded, so only the draws differ."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config = RLPDConfig(hidden=(64, 64), actor_period=1, num_critics=4, critic_subset=4)
    host, device = RLPD(config, SPEC, seed=0), RLPD(config, SPEC, seed=0, device="cuda")
    x = torch.randn(32, STATE_DIM + ACTION_DIM)
    torch.testing.assert_close(host.critic(x), device.critic(x.cuda()).cpu(), rtol=1e-4, atol=1e-5)
    batch = Batch(*[v.cuda() if isinstance(v, torch.Tensor) else v for v in make_batch()])
    for _ in range(20):
        metrics = device.update(batch)
    assert all(torch.isfinite(v) for v in metrics.values())
    again = RLPD(config, SPEC, seed=1, device="cuda")
    again.load_state_dict(device.state_dict())
    device.update(batch), again.update(batch)
    one, two = device.state_dict(), again.state_dict()
    assert all(torch.allclose(one[k].float(), two[k].float(), rtol=1e-4, atol=1e-5) for k in one)
