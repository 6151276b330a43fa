"""Which files may name code."""

from pathlib import Path

import pytest

from offrl.errors import InputError
from offrl.trust import Origin, Untrusted, trusted


def test_what_is_trusted_is_one_path_however_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    card = tmp_path / "card.toml"
    card.touch()
    (tmp_path / "link.toml").symlink_to(card)
    assert trusted("card.toml") == (str(card),)
    assert trusted(["./card.toml", card, "link.toml"]) == (str(card),)
    assert trusted(trusted(card)) == (str(card),)
    assert trusted("minari:a/b-v0") == ("minari:a/b-v0",)
    with pytest.raises(InputError, match=r"trust: crad\.toml: no such file or folder; give the c"):
        trusted(["crad.toml"])


def test_only_the_file_that_names_the_code_or_the_code_is_trusted(tmp_path: Path) -> None:
    for name in ("card.toml", "other.toml", "my code.py"):
        (tmp_path / name).touch()
    card, other, code = (
        str(tmp_path / "card.toml"),
        tmp_path / "other.toml",
        tmp_path / "my code.py",
    )
    Origin(card, trusted(card)).allow("key", code)
    Origin(card, trusted(code)).allow("key", code)
    Origin(card, trusted(card)).allow("key", "this")
    Origin().allow("key", code)  # of a card that was made in Python
    for trust in [(), trusted(other), trusted(tmp_path)]:
        with pytest.raises(Untrusted, match=r"card\.toml: key would import the file .*my code\.py"):
            Origin(card, trust).allow("key", code)
        with pytest.raises(Untrusted, match=r"the module this, .* give --trust \S+card\.toml"):
            Origin(card, trust).allow("key", "this")


def test_a_relative_path_of_code_starts_at_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Origin("sub/card.toml").place("./x.py") == tmp_path / "sub" / "x.py"
    assert Origin("sub/card.toml").place("/a/x.py") == Path("/a/x.py")
