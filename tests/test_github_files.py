"""What the forge reads of this repository: the workflow does what .ci/run does, and the forms ask what helps."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github"


def parsed(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def test_the_workflow_runs_the_steps_of_ci_in_their_order() -> None:
    expected = re.findall(r"^ *(make [\w-]+)$", (ROOT / ".ci" / "run").read_text(), flags=re.M)
    job = parsed("workflows/checks.yml")["jobs"]["checks"]
    assert [step["run"] for step in job["steps"] if "run" in step] == expected
    assert job["runs-on"] == "ubuntu-latest"
    assert "3.11" in job["container"]


def test_the_workflow_may_only_read() -> None:
    assert parsed("workflows/checks.yml")["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_a_form_has_questions_with_different_ids(name: str) -> None:
    form = parsed(f"ISSUE_TEMPLATE/{name}.yml")
    assert form["name"]
    assert form["description"]
    ids = [question["id"] for question in form["body"]]
    assert len(ids) == len(set(ids)) >= 2
    assert any(question["validations"]["required"] for question in form["body"])


def test_a_bug_comes_with_the_machine_it_was_seen_on() -> None:
    asked = {question["id"]: question for question in parsed("ISSUE_TEMPLATE/bug.yml")["body"]}
    assert "`mmattn info`" in asked["info"]["attributes"]["label"]
    assert asked["info"]["validations"]["required"]


def test_blank_issues_stay_possible() -> None:
    assert parsed("ISSUE_TEMPLATE/config.yml")["blank_issues_enabled"] is True


def test_a_pull_request_names_the_three_checks() -> None:
    text = (FOLDER / "pull_request_template.md").read_text(encoding="utf-8")
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.M)
    named = re.findall(r"`make ([\w-]+)`", text)
    assert named == ["lint", "types", "test"]
    assert set(named) <= set(targets)
