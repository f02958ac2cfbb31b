"""Networks against torch's own building blocks."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from serl_suite.networks.ensemble import EnsembleMLP, plain_mlp
from serl_suite.networks.fused import fused_mlp
from serl_suite.networks.gaussian import TanhGaussian, log_density
from serl_suite.networks.normaliser import Normaliser


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network(dtype, members=3, widths=(4, 7, 6, 1), batch=5):
    """An input and the parameters of each layer, all random."""
    generator = seeded()

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    layers = [
        [random(members, i, o), *[random(members, 1, o) for _ in range(3)]] for i, o in pairwise(widths)
    ]
    layers[-1] = layers[-1][:2]
    return random(batch, widths[0]), layers


@pytest.mark.parametrize("widths", [(4, 7, 6, 1), (3, 5, 2)])
def test_the_fused_network_has_the_gradients_of_its_function(widths):
    x, layers = network(torch.float64, widths=widths)
    flat = [parameter for layer in layers for parameter in layer]

    def function(x, *flat):
        parameters = iter(flat)
        return fused_mlp(x, [[next(parameters) for _ in layer] for layer in layers])

    assert torch.autograd.gradcheck(function, [x, *flat])
    assert torch.autograd.gradcheck(lambda x: function(x, *[p.detach() for p in flat]), [x])


@pytest.mark.parametrize("mlp", [fused_mlp, plain_mlp])
def test_a_network_is_made_of_linear_layernorm_relu(mlp):
    """The host's and the devices' path, against torch's modules."""
    x, layers = network(torch.float32, widths=(8, 256, 128, 3), batch=64)
    ours = mlp(x, layers)
    for m in range(3):
        modules = []
        for weight, bias, *norm in layers:
            modules.append(nn.Linear(*weight.shape[1:]))
            modules[-1].load_state_dict({"weight": weight[m].T, "bias": bias[m, 0]})
            if norm:
                modules.append(nn.LayerNorm(weight.shape[2]))
                modules[-1].load_state_dict({"weight": norm[0][m, 0], "bias": norm[1][m, 0]})
                modules.append(nn.ReLU())
        torch.testing.assert_close(ours[m], nn.Sequential(*modules)(x), rtol=1e-4, atol=1e-3)


def test_a_diverged_network_shows_it():
    """The compiled loop must not swallow what the non-finite guards of the learner look for."""
    x, layers = network(torch.float32)
    with torch.no_grad():
        x[0, 0] = torch.nan
    assert fused_mlp(x, layers)[:, 0].isnan().all()
    assert fused_mlp(x, layers)[:, 1:].isfinite().all()


@pytest.mark.parametrize("layer_norm", [True, False])
def test_each_member_of_an_ensemble_is_a_network_of_its_own(layer_norm):
    ensemble = EnsembleMLP(4, 6, (16, 8), 1, generator=seeded(), layer_norm=layer_norm)
    x = torch.randn(32, 6, generator=seeded(1))
    q = ensemble(x)
    assert q.shape == (4, 32, 1)
    for m in range(4):
        assert torch.allclose(ensemble(x, torch.tensor([m])), q[m : m + 1], atol=1e-6)
        if m:
            assert not torch.allclose(q[m], q[0], atol=1e-2), "members start apart"
    assert torch.allclose(ensemble(x, torch.tensor([2, 0])), q[[2, 0]], atol=1e-6)
    q[1].sum().backward()
    for parameter in ensemble.parameters():
        assert parameter.grad[1].abs().sum() > 0 or parameter.grad[1].numel() == 1
        assert parameter.grad[[0, 2, 3]].abs().sum() == 0, "no member sees another's gradient"


def test_a_frozen_ensemble_passes_the_gradient_of_its_input_only():
    ensemble = EnsembleMLP(2, 6, (16, 16), 1, generator=seeded())
    x = torch.randn(8, 6, generator=seeded(1), requires_grad=True)
    (expected,) = torch.autograd.grad(ensemble(x).sum(), x)
    ensemble.frozen(x).sum().backward()
    torch.testing.assert_close(x.grad, expected)
    assert all(parameter.grad is None for parameter in ensemble.parameters())


def test_the_log_density_is_that_of_a_squashed_normal():
    """Against torch.distributions in double precision, and finite where tanh has saturated."""
    generator = seeded()
    mean, log_std, noise = torch.randn(3, 512, 4, generator=generator, dtype=torch.float64)
    raw = mean + log_std.exp() * noise
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))
    sensible = raw.abs().amax(1) < 8.0
    expected = squashed.log_prob(torch.tanh(raw)).sum(1)
    torch.testing.assert_close(
        log_density(raw, log_std, noise)[sensible], expected[sensible], rtol=1e-6, atol=1e-5
    )
    far = torch.full((1, 4), 60.0)
    assert log_density(far, torch.zeros(1, 4), torch.zeros(1, 4)).isfinite().all()


def test_a_draw_has_the_density_it_reports():
    """The mean of 1 / p over draws is the volume of the action space, 2^d."""
    policy = TanhGaussian(3, 2, (16,), generator=seeded(), layer_norm=True)
    state = torch.zeros(200_000, 3)
    noise = torch.randn(200_000, 2, generator=seeded(1))
    raw, log_std = policy.draw(state, noise)
    action, log_p = torch.tanh(raw), log_density(raw, log_std, noise)
    assert (action.abs() <= 1.0).all()
    assert (-log_p).exp().mean().item() == pytest.approx(4.0, rel=0.05)


def test_the_mode_is_deterministic_and_a_draw_follows_its_generator():
    policy, state = TanhGaussian(3, 2, (16,), generator=seeded(), layer_norm=True), torch.ones(1, 3)
    assert torch.equal(policy.act(state, None), policy.act(state, None))
    assert torch.equal(policy.act(state, seeded(5)), policy.act(state, seeded(5)))
    assert not torch.equal(policy.act(state, seeded(5)), policy.act(state, seeded(6)))


def test_the_normaliser_centres_scales_and_bounds():
    rng, normaliser = np.random.default_rng(0), Normaliser(3)
    states = rng.normal([5.0, -2.0, 1.0], [100.0, 0.1, 0.0], (1000, 3)).astype(np.float32)
    normaliser.fit(states)
    normalised = normaliser(torch.from_numpy(states)).numpy()
    assert np.allclose(normalised[:, :2].mean(0), 0.0, atol=1e-3)
    assert np.allclose(normalised[:, :2].std(0), 1.0, atol=1e-2)
    assert np.allclose(normalised[:, 2], 0.0), "what never moved does not blow up"
    assert normaliser(torch.tensor([[1e9, -1e9, 1.01]])).tolist() == [
        [10.0, -10.0, pytest.approx(1.0, abs=1e-2)]
    ]


def test_tuning_the_host_keeps_float32():
    """In a process of its own, for it sets what is global: one thread, and products as exact as before."""
    script = """
import torch
from serl_suite.networks.host import tune_host
tune_host()
a, b = torch.randn(2, 2, 256, 256, generator=torch.Generator().manual_seed(1))
error = (torch.bmm(a, b).double() - a.double() @ b.double()).abs().max().item()
print(torch.get_num_threads(), error)
"""
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(out[0]) == 1
    assert float(out[1]) < 2e-4
