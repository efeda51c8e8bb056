# Copyright (c) mmseg_attn contributors.
"""Puts pages of the repository outside of docs/ on the site, too.

The README is its first page; the README of each method, the tables of the
benchmark and the changelog are pages as well, and so is each config and other
Python file that one of them links. Links are written so that they lead
somewhere in the repository; here they are led to the same on the site, where a
file that is no page is copied.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Place in the repository -> on the site, where the two differ in more than
# the folder docs/.
PLACES = {
    'README.md': 'index.md',
    'CHANGELOG.md': 'changelog.md',
    'CONTRIBUTING.md': 'contributing.md',
}
LINK = re.compile(r'(\]\(|\b(?:href|src)=")(?!\w+:|#|/)([^)"#\s]+)')
ROLE = re.compile(r':(?:func|class|meth|mod|attr):<code>~?([\w.]+)</code>')
# The page of a file: it is not searched, since each page would find it.
CODE = """---
search:
  exclude: true
---
# {}

`{}`

```python
{}```
"""
# What a browser would fetch from another host when a page is opened.
FETCHED = re.compile(
    r'<(?:script|img|iframe)\b[^>]*\bsrc="?https?:[^ >]*'
    r'|<link\b[^>]*\brel="?(?:stylesheet|preload|preconnect)[^>]*https?:[^ >]*'
)


def on_config(config: MkDocsConfig) -> None:
    """A page for each method, without naming them again."""
    methods = sorted(
        path.parent.relative_to(ROOT).as_posix() + '/README.md'
        for path in (ROOT / 'configs').glob('*/README.md')
    )
    for item in config.nav:
        if 'Methods' in item:
            item['Methods'] += methods


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages from outside of docs/."""
    found = [
        *(ROOT / 'configs').glob('*/README.md'),
        *(ROOT / 'resources').rglob('*.md'),
        *(ROOT / 'tools/benchmark/results').rglob('*.md'),
        ROOT / 'README.md',
        ROOT / 'CHANGELOG.md',
    ]
    for path in found:
        add(path.relative_to(ROOT).as_posix(), files, config)
    linked = {
        target
        for file in files.documentation_pages()
        for target in targets(file.content_string, file.src_uri)
    }
    for target in sorted(linked):
        if target.endswith('.py') and (ROOT / target).is_file():
            code = (ROOT / target).read_text(encoding='utf-8')
            text = CODE.format(Path(target).name, target, code)
            files.append(
                File.generated(config, site_place(target), content=text)
            )


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Lead links to their places on the site."""
    here = page.file.src_uri

    def led(found: re.Match) -> str:
        target = aim(found, here)
        if not (ROOT / target).is_file():
            return found[0]  # mkdocs names it: the build fails
        place = site_place(target)
        if not files.get_file_from_path(place):
            add(target, files, config)
        return found[1] + os.path.relpath(place, posixpath.dirname(here))

    return LINK.sub(led, markdown)


def on_page_content(
    html: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Roles in docstrings, such as :func:`name`, become links."""

    def linked(found: re.Match) -> str:
        name = found[1]
        return (
            f'<autoref optional identifier="{name}">'
            f'<code>{name.rpartition(".")[2]}</code></autoref>'
        )

    return ROLE.sub(linked, html)


def on_post_build(config: MkDocsConfig) -> None:
    """Nobody but the site itself learns who reads it."""
    for path in Path(config.site_dir).rglob('*.html'):
        fetched = FETCHED.search(path.read_text(encoding='utf-8'))
        if fetched:
            raise PluginError(f'{path} fetches from elsewhere: {fetched[0]}')


def targets(markdown: str, uri: str) -> list[str]:
    """Where the links of a page lead in the repository."""
    return [aim(found, uri) for found in LINK.finditer(markdown)]


def aim(found: re.Match, uri: str) -> str:
    """Where one of them leads."""
    home = posixpath.dirname(repository_place(uri))
    return posixpath.normpath(posixpath.join(home, found[2]))


def site_place(place: str) -> str:
    """Where a file of the repository is on the site."""
    place = PLACES.get(place, place.removeprefix('docs/'))
    return f'{place}.md' if place.endswith('.py') else place


def repository_place(uri: str) -> str:
    """Where a file of the site is in the repository."""
    for place, other in PLACES.items():
        if uri == other and (ROOT / place).is_file():
            return place if place != 'CONTRIBUTING.md' else f'docs/{uri}'
    return uri if (ROOT / uri).is_file() else f'docs/{uri}'


def add(place: str, files: Files, config: MkDocsConfig) -> None:
    """Put a file of the repository on the site."""
    files.append(
        File.generated(
            config,
            site_place(place),
            abs_src_path=str(ROOT / place),
        )
    )
