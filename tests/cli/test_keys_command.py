"""`serl keys`: makes keys that the sockets take, and tells when a secret is open to others."""

import zmq

from serl_suite.cli.main import main


def test_makes_a_pair_and_lists_it(tmp_path, capsys):
    assert main(["keys", "make", "learner", "--folder", str(tmp_path)]) == 0
    public = (tmp_path / "learner.public").read_bytes().strip()
    secret = tmp_path / "learner.secret"
    assert zmq.curve_public(secret.read_bytes().strip()) == public
    assert secret.stat().st_mode & 0o777 == 0o600
    made = capsys.readouterr().out
    assert public.decode() in made
    assert secret.read_text().strip() not in made
    assert main(["keys", "list", "--folder", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert public.decode() in listed
    assert "here" in listed


def test_tells_an_open_secret_and_a_foreign_key(tmp_path, capsys):
    for name in ("learner", "actor"):
        main(["keys", "make", name, "--folder", str(tmp_path)])
    (tmp_path / "learner.secret").chmod(0o644)
    (tmp_path / "actor.secret").unlink()
    capsys.readouterr()
    main(["keys", "list", "--folder", str(tmp_path)])
    actor, learner = capsys.readouterr().out.splitlines()[-2:]
    assert "of another machine" in actor
    assert "OPEN TO OTHERS" in learner


def test_lists_a_key_as_it_is_on_a_narrow_terminal(tmp_path, capsys, monkeypatch):
    public = "K%8A=bA!o6^POdt[q]OnvH1EU-20GxJ^hN:x:raN"  # a Z85 text may look like a mark-up or an emoji
    (tmp_path / "a-machine-of-the-robot-laboratory.public").write_text(public)
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["keys", "list", "--folder", str(tmp_path)]) == 0
    assert public in capsys.readouterr().out


def test_never_overwrites_a_key(tmp_path, capsys):
    main(["keys", "make", "a", "--folder", str(tmp_path)])
    before = (tmp_path / "a.secret").read_bytes()
    assert main(["keys", "make", "a", "--folder", str(tmp_path)]) == 1
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "a.secret").read_bytes() == before


def test_an_empty_folder_says_how_to_begin(tmp_path, capsys):
    assert main(["keys", "list", "--folder", str(tmp_path)]) == 0
    assert "serl keys make learner" in capsys.readouterr().out
