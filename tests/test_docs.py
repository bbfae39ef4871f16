"""The documentation says what is."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_generated_parts_of_the_docs_are_up_to_date() -> None:
    """Options of each command, and the settings."""
    spec = importlib.util.spec_from_file_location("regenerate", ROOT / "docs" / "regenerate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    stale = [page.name for page, text in module.pages().items() if page.read_text(encoding="utf-8") != text]
    assert stale == []


def test_every_command_has_its_page_and_every_link_its_target() -> None:
    """README and docs lead somewhere."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for command in ("run", "check", "quota", "batches", "emulate", "prune", "config", "gateway", "init"):
        assert (ROOT / "docs" / f"{command}.md").exists()


def test_the_providers_literal_texts_stand_in_the_readme() -> None:
    """People search for them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for text in ("token_limit_exceeded", "surpassed the configured limit of 30K", "Enqueued token limit reached for"):
        assert text in readme


def test_every_test_that_the_security_page_names_exists() -> None:
    """A row without its test would be a promise only."""
    named = re.findall(r"`(tests/\S+?\.py)::(test_\w+)`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8"))

    assert len(named) > 15
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no {name}"
