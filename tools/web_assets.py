"""The browser libraries that the site, the slides and their tests use: fetched once, pinned, checked.

None of them is in the repository. They come from the npm registry as plain archives, whose SHA-512 stands
below, and are kept in `_build/web/`; whoever opens the site or a deck needs no network. Behind a mirror, set
NPM_CONFIG_REGISTRY.
"""

import base64
import hashlib
import io
import os
import shutil
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "_build" / "web"
REGISTRY = "https://registry.npmjs.org"
PATIENCE = 60  # seconds without an answer


class AssetError(Exception):
    """A library cannot be had. The message says what to do."""


@dataclass(frozen=True)
class Library:
    """One package of the npm registry."""

    name: str
    """Its name there."""
    version: str
    """The one version that is used."""
    sha512: str
    """Checksum of the archive in base64, which is what the registry calls its integrity."""
    wanted: tuple[str, ...]
    """Files and folders of the archive that are kept."""


KATEX = Library(
    "katex",
    "0.19.1",
    "jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA==",
    ("dist/katex.min.js", "dist/katex.min.css", "dist/fonts/", "LICENSE"),
)
"""Sets formulas: a quarter of MathJax's size, and done when its call returns, so slides can be measured."""

REVEAL = Library(
    "reveal.js",
    "5.2.1",
    "r7//6mIM5p34hFiDMvYfXgyjXqGRta+/psd9YtytsgRlrpRzFv4RbH76TXd2qD+7ZPZEbpBDhdRhJaFgfQ7zNQ==",
    ("dist/reveal.js", "dist/reveal.css", "dist/reset.css", "plugin/notes/notes.js", "LICENSE"),
)
"""Shows slides."""

AXE = Library(
    "axe-core",
    "4.14.1",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    ("axe.min.js", "LICENSE"),
)
"""Looks for what shuts people out; for the tests alone."""


def fetch(library: Library, cache: Path = CACHE) -> Path:
    """The folder that holds a library, fetched if it is not there yet.

    Raises:
        AssetError: no network, or an archive that is not the one that was pinned.
    """
    folder = cache / f"{library.name}-{library.version}"
    if not folder.is_dir():
        files = unpack(library, download(library))
        draft = folder.with_name(f"{folder.name}.{os.getpid()}")  # two builds may run side by side
        for name, content in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(content)
        try:
            draft.rename(folder)
        except OSError:  # the other one was quicker
            shutil.rmtree(draft)
    return folder


def download(library: Library) -> bytes:
    """The archive of a library, as pinned."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/")
    address = f"{registry}/{library.name}/-/{library.name}-{library.version}.tgz"
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            archive = answer.read()
    except (OSError, ValueError) as error:
        raise AssetError(
            f"{address} could not be fetched ({error}).\n"
            "  The first build needs the network (behind a proxy: set HTTPS_PROXY; with a mirror:\n"
            "  set NPM_CONFIG_REGISTRY). What was fetched is kept in _build/web/."
        ) from error
    found = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != library.sha512:
        raise AssetError(f"{address} is not the archive that was pinned: its SHA-512 is {found}.")
    return archive


def unpack(library: Library, archive: bytes) -> dict[str, bytes]:
    """The wanted files of an archive, by their names inside the package."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as package:
        for member in package:
            name = member.name.partition("/")[2]
            if member.isfile() and name.startswith(library.wanted):
                files[name] = package.extractfile(member).read()
    if missing := [want for want in library.wanted if not any(name.startswith(want) for name in files)]:
        raise AssetError(f"{library.name} {library.version} lacks {', '.join(missing)}.")
    return files
