"""The README tells the truth: its settings, its tree, its commands."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import trendrag.types
from ingest.sources import AnySource, parse_sources
from ingest.sources.base import SourceEntry
from serving.commands import PLATFORMS
from trendrag.cli import command
from trendrag.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}", field


def settings_table() -> str:
    rows = ["| Variable | Default | What |", "|---|---|---|"]
    for name, field in fields(Settings, "TRENDRAG_"):
        default = "`var/` of the checkout" if field.default_factory else f"`{field.default}`"
        rows.append(f"| `{name}` | {default if field.default is not None else ''} | {field.description} |")
    return "\n".join(rows)


def test_the_settings_table_is_complete_and_true() -> None:
    found = re.search(r"<!-- settings.*?-->\n(.*?)\n?<!-- end of settings -->", README, re.DOTALL)
    assert found
    assert found[1] == settings_table(), f"replace the table in README.md by:\n{settings_table()}"


def test_every_path_in_the_tree_exists() -> None:
    tree = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert tree
    folder = ""
    for line in tree[1].splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name
        assert (ROOT / (name if name == folder else folder + name)).exists(), line


def test_every_command_in_the_readme_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    commands = project["entry-points"]["trendrag.commands"].keys()
    for text in (README, (ROOT / "docs" / "sources.md").read_text("utf-8")):
        assert set(re.findall(r"^    trendrag (\w+)", text, re.MULTILINE)) <= commands
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text("utf-8")):
        for target in re.findall(r"\bmake ([a-z-]+)", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("name", sorted(entry.name for entry in entry_points(group="trendrag.commands")))
def test_every_command_has_a_help_that_teaches(name: str) -> None:
    result = CliRunner().invoke(command(name), ["--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5
    for parameter in command(name).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}"


def test_the_platforms_of_the_command_line_are_those_of_a_request() -> None:
    assert get_args(trendrag.types.Platform) == PLATFORMS


def test_local_links_lead_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_sources_page_has_a_working_example_of_every_type_and_names_its_fields() -> None:
    page = (ROOT / "docs" / "sources.md").read_text("utf-8")
    examples = parse_sources("\n".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)), "docs/sources.md")
    entries = [each for each in examples if isinstance(each, SourceEntry)]
    missing = {each.__name__ for each in get_args(get_args(AnySource)[0])} - {type(each).__name__ for each in entries}
    assert not missing, f"docs/sources.md has no example of {missing}"
    for each in entries:
        unsaid = {
            name for name in type(each).model_fields if not re.search(rf"`{name}`|^{name} = ", page, re.MULTILINE)
        }
        assert not unsaid, f"docs/sources.md says nothing of {unsaid} of {type(each).__name__}"


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", (ROOT / "docs" / "threat-model.md").read_text("utf-8")))
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert len(named) > 20
    assert named <= there
