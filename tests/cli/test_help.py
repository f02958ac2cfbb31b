"""Every command of ours explains itself, with an example that begins with its own name."""

import importlib.metadata

import pytest

from serl_suite.cli.main import COMMANDS, main


@pytest.mark.parametrize("command", ["eval", "report", "tasks", "demo record", "data inspect", "keys"])
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    usage, _, teaching = text.partition("\n\n")
    assert usage.startswith(f"usage: serl {command} ")
    assert f"\n  serl {command}" in teaching or f"serl {command} make" in teaching


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_the_help_lists_every_command(words, capsys):
    assert main(words) == 0
    text = capsys.readouterr().out
    assert all(f"  serl {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("words", [["demo", "--help"], ["help", "demo"]])
def test_the_help_of_a_group_lists_its_commands(words, capsys):
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "  serl demo record " in text
    assert "serl data" not in text


def test_help_before_a_command_is_the_help_of_the_command(capsys):
    with pytest.raises(SystemExit) as end:
        main(["help", "keys"])
    assert end.value.code == 0
    assert "serl keys make learner" in capsys.readouterr().out


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"serl-suite {importlib.metadata.version('serl-suite')}\n"
