"""`serl keys`: the keys that learner and actor need to talk across machines."""

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import tyro

__all__ = ["run"]

DESCRIPTION = """Make and list the keys (CURVE) that learner and actor need off loopback.

  on the learner's machine   serl keys make learner
  on the actor's machine     serl keys make actor
  then copy learner.public to the actor's machine and actor.public to the learner's, into the same folder.

A .secret file never leaves its machine. Whoever has no key of a name in the learner's folder is not let in."""


class Make(msgspec.Struct, frozen=True, kw_only=True):
    """Make a pair of keys."""

    name: Annotated[str, tyro.conf.Positional]
    """Letters, digits, - and _: learner, actor, lab2, ..."""
    folder: Path | None = None
    """Folder of the keys; ~/.config/serl/keys by default."""


class List(msgspec.Struct, frozen=True, kw_only=True):
    """List the keys in a folder."""

    folder: Path | None = None
    """Folder of the keys; ~/.config/serl/keys by default."""


def run(arguments: Sequence[str]) -> int:
    """Makes or lists keys; 0."""
    verbs = Annotated[Make, tyro.conf.subcommand("make")] | Annotated[List, tyro.conf.subcommand("list")]
    chosen: Make | List = tyro.cli(
        verbs, args=list(arguments) or ["--help"], prog="serl keys", description=DESCRIPTION
    )
    from serl_suite.wire.keys import default_folder

    folder = chosen.folder or default_folder()
    if isinstance(chosen, Make):
        _make(chosen.name, folder)
    else:
        _list(folder)
    return 0


def _make(name: str, folder: Path) -> None:
    from serl_suite.wire.keys import make_keys

    info = make_keys(name, folder)
    print(f"Made {folder / name}.secret (stays on this machine) and {name}.public: {info.public}")  # noqa: T201
    print(f"Copy {folder / name}.public into the keys folder of every machine that {name} talks to.")  # noqa: T201


def _list(folder: Path) -> None:
    from serl_suite.wire.keys import list_keys

    infos = list_keys(folder)
    if not infos:
        print(f"No keys in {folder}; make one: serl keys make learner")  # noqa: T201
        return
    print(folder)  # noqa: T201
    width = max(len(info.name) for info in infos)
    # Plain text, whole on any terminal: a key may look like a mark-up, and it is there to be copied.
    for info in infos:
        print(f"{info.name:{width}}   {info.public}   {_secret_state(folder / f'{info.name}.secret')}")  # noqa: T201


def _secret_state(path: Path) -> str:
    if not path.exists():
        return "secret of another machine"
    is_open = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return "SECRET OPEN TO OTHERS: chmod 600 it" if is_open else "secret here"
