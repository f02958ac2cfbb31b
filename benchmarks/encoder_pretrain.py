"""What a frozen backbone tells of where the cube is: random, pretrained without labels, and trained for it.

Each backbone has the same shape (small CNN, two cameras of 64 x 64). On its features what an agent has there, heads and
a network of two layers, learns the cube's place in the tool frame from the twin's own state; the error is on episodes
that no network has seen. The third backbone learns with its heads: what can be had from so many labelled pictures. The
place across the tool's axis is what a grasp needs; along it a picture of 64 x 64 says little.
"""

import argparse
import sys
import time
from itertools import islice
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from _table import Row, print_table, write_json
from torch import Tensor, nn

from serl_suite.networks.backbone import feature_shape, make_backbone
from serl_suite.networks.encoder import Heads
from serl_suite.networks.encoder_config import RANDOM, EncoderConfig
from serl_suite.networks.ensemble import EnsembleMLP
from serl_suite.networks.host import tune_host
from serl_suite.nodes.environment import Environment
from serl_suite.nodes.pretrain import PretrainConfig, train_backbone
from serl_suite.nodes.pretrain_pictures import Album, Pairs, rendered

TASK, CAMERAS, SIDE = "FrankaPickCube-v0", ("front", "wrist"), 64
LENGTHS, NOISES = (2, 20), (0.1, 0.5)
HELD_OUT = 0.25
"""Share of the episodes, the last ones."""
BATCH, LEARNING_RATE = 128, 1e-3
TARGET_SHARE = 0.6


class Labelled(NamedTuple):
    """Steps with what the twin knows."""

    images: Tensor
    """Shape: (cameras, n, side, side, 3)"""
    state: Tensor
    """Proprioception, standardised. Shape: (n, state_dim)"""
    place: Tensor
    """Of the cube in the tool frame [m]. Shape: (n, 3)"""
    train: Tensor
    test: Tensor
    """Indices. Shape: (n_train,), (n_test,)"""


class Errors(NamedTuple):
    """Mean and median distance across the tool's axis, mean distance in space [mm]."""

    across: float
    median: float
    space: float

    def __str__(self) -> str:
        return f"{self.across:.1f} mm ({self.median:.1f}, {self.space:.1f})"


def look(count: int) -> tuple[Pairs, float]:
    """Looks at the twin as `serl encoder pretrain` takes them, and how long that took [s]."""
    environment = Environment(TASK, obs="pixels", cameras=CAMERAS, image_size=SIDE)
    album, start = Album(SIDE, count, 0), time.perf_counter()
    for pair in islice(rendered(environment, 0), count):
        album.add(pair)
    environment.close()
    return album.pairs(), time.perf_counter() - start


def label(steps: int) -> Labelled:
    """Short episodes of the scripted expert with noise."""
    environment = Environment(TASK, cameras=CAMERAS, image_size=SIDE)
    rng, episode = np.random.default_rng(1), 0
    images, state, place, episodes = [], [], [], []
    while len(place) < steps:
        observation = environment.reset(seed=episode)
        expert = environment.make_expert(float(rng.uniform(*NOISES)), episode)
        for _ in range(int(rng.integers(*LENGTHS))):
            images.append(np.stack([observation[camera] for camera in CAMERAS]))
            state.append(
                np.concatenate([observation[key] for key in ("gripper", "tcp_pose", "tcp_twist", "wrench")])
            )
            place.append(observation["cube"][:3])
            episodes.append(episode)
            observation, _, terminated, truncated, _ = environment.step(expert.act(observation))
            if terminated or truncated:
                break
        episode += 1
    environment.close()
    held_out = np.array(episodes) >= (1 - HELD_OUT) * episode
    train, test = (torch.from_numpy(np.flatnonzero(chosen)) for chosen in (~held_out, held_out))
    states = torch.from_numpy(np.stack(state))
    states = (states - states[train].mean(0)) / (states[train].std(0) + 1e-3)
    return Labelled(
        torch.from_numpy(np.stack(images, 1)), states, torch.from_numpy(np.stack(place)), train, test
    )


def probe(backbone: nn.Module, data: Labelled, updates: int, *, together: bool = False) -> Errors:
    """How far off the cube is said to be, on held-out episodes.

    Args:
        backbone: Looked through as it is.
        data: Learned from and judged on.
        updates: Gradient steps.
        together: The backbone learns, too.
    """
    generator = torch.Generator().manual_seed(0)
    heads = Heads(
        len(CAMERAS), feature_shape(backbone, SIDE), data.state.shape[1], EncoderConfig(), generator
    )
    last = EnsembleMLP(1, heads.width, (256, 256), 3, generator=generator, layer_norm=True)
    middle, spread = data.place[data.train].mean(0), data.place[data.train].std()
    parameters = [*heads.parameters(), *last.parameters(), *(backbone.parameters() if together else [])]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)

    def features(rows: Tensor) -> Tensor:
        return torch.stack([backbone(camera[rows]).flatten(1) for camera in data.images])

    def told(seen: Tensor, rows: Tensor) -> Tensor:
        return last(heads(seen, data.state[rows]))[0]

    with torch.no_grad():
        known = features(torch.arange(len(data.state)))
    for _ in range(updates):
        rows = data.train[torch.randint(len(data.train), (BATCH,), generator=generator)]
        seen = features(rows) if together else known[:, rows]
        loss = (told(seen, rows) - (data.place[rows] - middle) / spread).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return errors_of(told(features(data.test), data.test) * spread + middle, data)


def errors_of(places: Tensor, data: Labelled) -> Errors:
    """Of places that are told for the held-out steps. Shape: (n_test, 3)"""
    off = 1e3 * (places - data.place[data.test])
    across = off[:, :2].norm(dim=1)
    return Errors(float(across.mean()), float(across.median()), float(off.norm(dim=1).mean()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--renders", type=int, default=4000, help="looks to pretrain on, without labels")
    parser.add_argument("--updates", type=int, default=PretrainConfig().updates, help="of pretraining")
    parser.add_argument(
        "--labelled", type=int, default=2600, help="steps with labels, a quarter of them held out"
    )
    parser.add_argument("--probe-updates", type=int, default=600)
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    tune_host()
    pairs, looking = look(args.renders)
    data = label(args.labelled)
    start = time.process_time()
    config = PretrainConfig(side=SIDE, updates=args.updates)
    pretrained = train_backbone(config, pairs, lambda update, loss: None, Event())
    training = time.process_time() - start
    assert pretrained is not None
    generator = torch.Generator().manual_seed(0)
    random = make_backbone(EncoderConfig(frozen=True, weights=RANDOM), SIDE, generator)
    trained = make_backbone(EncoderConfig(), SIDE, generator)
    guess = errors_of(data.place[data.train].mean(0).expand(len(data.test), 3), data)
    blind = probe(random, data, args.probe_updates)
    seeing = probe(pretrained.requires_grad_(False), data, args.probe_updates)
    best = probe(trained, data, args.probe_updates, together=True)
    rows = [
        Row("frozen, pretrained", str(seeing), f"frozen, random {blind}", f"<= {TARGET_SHARE} of it",
            seeing.across <= TARGET_SHARE * blind.across),
        Row("  learned with the labels, not frozen", str(best), f"mean place {guess}", "", None),
        Row(f"pretraining, {len(pairs.eyes)} looks, one thread", f"{training:.0f} s", "", "<= 180 s",
            training <= 180),
        Row("  rendering them, whatever else the machine does", f"{looking:.0f} s", "", "", None),
    ]  # fmt: skip
    passed = print_table(
        f"Where the cube is across the tool's axis: mean (median, mean in space), {len(data.train)} labelled steps",
        rows,
    )
    write_json(args.json, rows)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
