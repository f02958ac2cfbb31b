"""Every command of ours explains itself, with an example that begins with its own name."""

import pytest

from serl_suite.cli.main import main


@pytest.mark.parametrize("command", ["eval", "report", "tasks", "demo record", "data inspect", "keys"])
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    usage, _, teaching = text.partition("\n\n")
    assert usage.startswith(f"usage: serl {command} ")
    assert f"\n  serl {command}" in teaching or f"serl {command} make" in teaching
