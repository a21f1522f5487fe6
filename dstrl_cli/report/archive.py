"""Reads an archive of runs in place: its files are read one by one, and never unpacked to disk.

An archive may come from anybody. One is refused whose names are not those of plain files below it,
or whose files would be larger than logs of runs are. `archiving` writes archives.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from dstrl_cli.config import readfile
from dstrl_cli.errors import InputError

MAX_FILE, MAX_TOTAL = 1 << 27, 1 << 31
"""Most bytes of one file and of all files of an archive (128 MiB and 2 GiB)."""

TOPOLOGY_LAST = "topology_last.csv"
"""What an archive has in place of `topology.csv`: its last row of each network and layer."""

_ENCRYPTED = 1


class ArchivedPath:
    """A file or folder in an archive, with the part of `pathlib.Path` that reading runs needs."""

    def __init__(self, archive: Archive, at: PurePosixPath) -> None:
        self._archive, self._at = archive, at

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._at.name

    def __truediv__(self, name: str | PurePosixPath) -> ArchivedPath:
        return ArchivedPath(self._archive, self._at / name)

    def __str__(self) -> str:
        return str(self._archive.path / self._at)

    def __fspath__(self) -> str:
        """Return a path that no file system has: only this class reads what is here."""
        return str(self)

    def relative_to(self, other: object) -> PurePosixPath:
        """Return its path below another of the same archive."""
        return self._at.relative_to(other._at if isinstance(other, ArchivedPath) else "")

    def resolve(self) -> PurePosixPath:
        """Return its absolute path, the archive being the root."""
        return PurePosixPath("/", self._at)

    def is_file(self) -> bool:
        """Whether there is such a file."""
        return str(self._at) in self._archive.files

    def is_dir(self) -> bool:
        """Whether there are files below it."""
        return self._at in self._archive.folders

    def read_bytes(self) -> bytes:
        """Return what the file holds. Raises OSError where it is missing or damaged."""
        return self._archive.read(str(self._at))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the text that the file holds. Raises OSError as `read_bytes` does."""
        with io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding, errors) as file:
            return file.read()

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Return the file, opened to read bytes. Raises OSError as `read_bytes` does."""
        return io.BytesIO(self.read_bytes())


class Archive:
    """An open archive.

    Attributes:
        path: where it is.
        files: what is known of each file, by its path in the archive.
        folders: the files in every folder by name; every folder of a file is one.

    Raises InputError where the file is no archive, or one that is refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise InputError(
                f"results {path} is not a folder, and no archive that can be read ({error})"
            ) from error
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        self.files = {info.filename: info for info in infos}
        self._check(infos)
        self.folders: dict[PurePosixPath, set[str]] = {PurePosixPath(): set()}
        for name in self.files:
            file = PurePosixPath(name)
            for folder in file.parents:
                self.folders.setdefault(folder, set())
            self.folders[file.parent].add(file.name)

    def _check(self, infos: list[zipfile.ZipInfo]) -> None:
        """Raise InputError for an archive that `dstrl archive` does not write."""
        names = [info.filename for info in infos]
        odd = next((name for name in names if not is_plain(name)), None)
        if odd is not None:
            raise self._refused(f"holds the odd name {odd!r}")
        if len(self.files) < len(infos):
            twice = next(name for name in names if names.count(name) > 1)
            raise self._refused(f"holds {twice} twice")
        if any(info.flag_bits & _ENCRYPTED for info in infos):
            raise self._refused("is encrypted")
        check_sizes({info.filename: info.file_size for info in infos}, self.path)

    def read(self, name: str) -> bytes:
        """Return the content of a file. Raises OSError where it is missing or damaged."""
        if name not in self.files:
            raise FileNotFoundError(name)
        try:
            # reads no more than the size that was checked, whatever the compressed data holds
            return self._zip.read(self.files[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise OSError(f"damaged in {self.path.name}: {error}") from error

    def _refused(self, cause: str) -> InputError:
        return InputError(f"archive {self.path} {cause}: it is none that dstrl archive wrote")


def is_plain(name: str) -> bool:
    """Whether a name is that of a file below the archive, and safe to print."""
    plain = PurePosixPath(name).as_posix() == name and not PurePosixPath(name).is_absolute()
    return plain and ".." not in name.split("/") and "\\" not in name and name.isprintable()


def check_sizes(sizes: dict[str, int], archive: Path) -> None:
    """Raise InputError where files are larger than an archive's may be."""
    for name, size in sizes.items():
        if size > MAX_FILE:
            raise InputError(f"archive {archive}: {name} has {size:,} bytes, over {MAX_FILE:,}")
    if (total := sum(sizes.values())) > MAX_TOTAL:
        raise InputError(
            f"archive {archive}: its files have {total:,} bytes, over {MAX_TOTAL:,}: archive parts "
            "of the results one by one"
        )


def runs_in(root: ArchivedPath, markers: tuple[str, ...]) -> list[ArchivedPath]:
    """Return the folders of an archive that hold any of the files `markers`, in a fixed order."""
    folders = root._archive.folders
    return [root / folder for folder in sorted(folders) if not folders[folder].isdisjoint(markers)]


def open_archive(path: Path) -> ArchivedPath:
    """Return the root of an archive. Raises InputError where it cannot be read or is refused."""
    return ArchivedPath(Archive(path), PurePosixPath())


def read_bytes(path: Path | ArchivedPath, limit: int) -> bytes:
    """Return what a file holds. Raises OSError where it is missing, no file, or over `limit`."""
    return path.read_bytes() if isinstance(path, ArchivedPath) else readfile.read_bytes(path, limit)
