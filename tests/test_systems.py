"""The operating systems that dstrl runs on."""

from types import SimpleNamespace

import pytest

import dstrl_cli
from dstrl_cli import __main__
from dstrl_cli.errors import InputError


def test_on_another_system_one_line_says_where_dstrl_runs(monkeypatch, capsys):
    monkeypatch.setattr(dstrl_cli, "os", SimpleNamespace(name="nt"))
    assert __main__.main() == 2
    line = "error: dstrl runs on Linux and macOS; on Windows, install and call it in WSL\n"
    assert capsys.readouterr().err == line
    with pytest.raises(InputError, match="dstrl runs on Linux and macOS"):
        dstrl_cli.__getattr__("train")
