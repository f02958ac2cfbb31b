"""The command that makes a run again."""

import shlex

import msgspec

from serl_suite.nodes.config import TrainConfig
from serl_suite.rig import Rig

__all__ = ["changed_settings", "train_command"]

Setting = tuple[str, ...]
"""Path of a setting, such as ("agent", "utd")."""


def changed_settings(config: TrainConfig) -> dict[Setting, object]:
    """Returns every setting that differs from its default."""
    defaults = settings(TrainConfig(task=config.task))
    return {path: value for path, value in settings(config).items() if value != defaults[path]}


def settings(config: msgspec.Struct) -> dict[Setting, object]:
    """Returns every leaf of a configuration by its path."""
    leaves: dict[Setting, object] = {}
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if isinstance(value, Rig):
            leaves[name,] = value.source
        elif isinstance(value, msgspec.Struct):
            leaves |= {(name, *path): leaf for path, leaf in settings(value).items()}
        else:
            leaves[name,] = value
    return leaves


def train_command(config: TrainConfig) -> str:
    """Returns the `serl train` command line that resolves to this configuration, quoted for a shell."""
    words = ["serl", "train", config.task]
    for path, value in changed_settings(config).items():
        *groups, name = path
        if isinstance(value, bool) and not value:
            name = f"no_{name}"
        flag = "--" + ".".join([*groups, name]).replace("_", "-")
        if isinstance(value, bool):
            words.append(flag)
        elif isinstance(value, tuple):
            words += [flag, *map(str, value)]
        else:
            words += [flag, str(value)]
    return shlex.join(words)
