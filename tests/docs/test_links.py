"""Links between the documents lead somewhere, and code in them says what it is."""

from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, README, ROOT, anchors_of, blocks_of, links_of, name_of

LANGUAGES = {"sh", "console", "text", "python"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_relative_link_resolves(path: Path) -> None:
    for link in links_of(path):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


def test_every_document_is_linked_from_the_readme() -> None:
    linked = {(README.parent / link.partition("#")[0]).resolve() for link in links_of(README)}
    assert {path for path in DOCUMENTS if path.parent == ROOT / "docs"} <= linked


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_block_says_in_which_language_it_is(path: Path) -> None:
    for block in blocks_of(path):
        assert block.language in LANGUAGES, block
        # What is no `sh` block is run by no test.
        assert block.language in ("sh", "console", "python") or "uv run" not in block.text, block
