"""environment.yml says what pyproject.toml says."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA = [each for each in ENVIRONMENT["dependencies"] if isinstance(each, str)]
(PIP,) = [each["pip"] for each in ENVIRONMENT["dependencies"] if isinstance(each, dict)]


def required() -> dict[str, SpecifierSet]:
    """Return what the package and its notebooks need, by name."""
    needed = map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["notebook"]])
    return {each.name: each.specifier for each in needed}


def test_form():
    """It has a name, channels that do not mix, and pip's part at the end."""
    assert (ENVIRONMENT["name"], ENVIRONMENT["channels"]) == ("tradecache", ["conda-forge", "nodefaults"])
    assert isinstance(ENVIRONMENT["dependencies"][-1], dict)
    assert "pip" in CONDA


def test_the_package_itself():
    """Pip installs this repository with the extra that the notebooks need, which Binder does not do by itself."""
    assert PIP == ["-e .[notebook]"]
    assert "notebook" in PROJECT["optional-dependencies"]


def test_python():
    """Its Python is one that the package runs on, and says so."""
    (version,) = [each.removeprefix("python=") for each in CONDA if each.startswith("python=")]

    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]


@pytest.mark.parametrize("text", [each for each in CONDA if each != "pip" and not each.startswith("python=")])
def test_same_bounds(text):
    """What conda installs is what pip would have installed, within the same bounds."""
    name = re.split("[<>=]", text)[0]

    assert Requirement(text).specifier == required()[name]
