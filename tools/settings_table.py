"""Write the tables of docs/operations.md from what the code declares, or say that they are stale.

python tools/settings_table.py           write the tables between their markers
python tools/settings_table.py --check   exit 1 when what stands there differs
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from statehouse.cli.exit_codes import CONTROL_EXIT_TEXTS, DAEMON_EXIT_TEXTS, ControlExit, DaemonExit
from statehouse.settings import Setting, declared_settings

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "operations.md"


def settings_rows(*, limits: bool) -> str:
    """The settings as a table, or those that are limits of a request."""
    rows = ["| flag | environment | TOML | default | expected | what it does |", "|---|---|---|---|---|---|"]
    for setting in declared_settings():
        if setting.name.startswith("limits.") is limits:
            variables = ", `".join(f"{name}`" for name in setting.variables)
            cells = [
                f"`{setting.flag}`",
                f"`{variables}",
                f"`{setting.name}`",
                f"`{setting.shown_default}`",
                expected(setting),
                setting.help_text,
            ]
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def expected(setting: Setting) -> str:
    """What is accepted; in the environment apart, where that is read in a way of its own."""
    if setting.variable_form is setting.form:
        return setting.form.accepted
    return f"{setting.form.accepted}; in the environment {setting.variable_form.accepted}"


def exit_rows(texts: Mapping[DaemonExit, str] | Mapping[ControlExit, str]) -> str:
    """Exit codes as a table."""
    return "\n".join(
        ["| code | meaning |", "|---|---|", *(f"| {int(code)} | {text} |" for code, text in texts.items())]
    )


def tables() -> dict[str, str]:
    """Each table by the name in its markers."""
    return {
        "settings": settings_rows(limits=False),
        "limits": settings_rows(limits=True),
        "statehoused exit codes": exit_rows(DAEMON_EXIT_TEXTS),
        "statehousectl exit codes": exit_rows(CONTROL_EXIT_TEXTS),
    }


def written(page: str) -> str:
    """The page with every table as it should be. LookupError when a table has no markers."""
    for name, table in tables().items():
        start, end = f"<!-- {name}: python tools/settings_table.py -->\n", f"<!-- end of {name} -->"
        if start not in page or end not in page:
            raise LookupError(f"docs/operations.md has no place for {name}")
        before, _, rest = page.partition(start)
        after = rest.partition(end)[2]
        page = f"{before}{start}\n{table}\n\n{end}{after}"
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the tables of docs/operations.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a table is stale")
    check_only = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    fresh = written(page)
    if fresh == page:
        return 0
    if check_only:
        print("docs/operations.md is stale: run python tools/settings_table.py", file=sys.stderr)
        return 1
    PAGE.write_text(fresh, encoding="utf-8")
    print("wrote docs/operations.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
