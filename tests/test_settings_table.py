"""docs/operations.md says what the code declares."""

import pytest
import settings_table

from statehouse.cli.exit_codes import DaemonExit
from statehouse.settings import declared_settings


def test_the_page_is_fresh():
    page = settings_table.PAGE.read_text(encoding="utf-8")
    assert settings_table.written(page) == page


def test_a_stale_page_is_told_apart_and_mended(tmp_path, monkeypatch, capsys):
    page = settings_table.PAGE.read_text(encoding="utf-8")
    stale = tmp_path / "operations.md"
    stale.write_text(page.replace("`30000`", "`60000`"))
    monkeypatch.setattr(settings_table, "PAGE", stale)
    monkeypatch.setattr("sys.argv", ["settings_table.py", "--check"])
    assert settings_table.main() == 1
    assert "stale" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["settings_table.py"])
    assert settings_table.main() == 0
    assert stale.read_text() == page


def test_a_page_without_a_place_for_a_table_is_an_error():
    page = settings_table.PAGE.read_text(encoding="utf-8")
    with pytest.raises(LookupError, match="no place for limits"):
        settings_table.written(page.replace("<!-- end of limits -->", ""))


def test_every_setting_and_exit_code_is_in_the_tables():
    tables = settings_table.tables()
    for setting in declared_settings():
        table = tables["limits" if "." in setting.name else "settings"]
        assert f"| `{setting.flag}` | `{setting.variable}`" in table
    assert "; in the environment anything: empty, 0 and false mean no" in tables["settings"]
    for code in DaemonExit:
        assert f"\n| {int(code)} | " in tables["statehoused exit codes"]
