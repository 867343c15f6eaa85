"""Extraction of archives: zip and tar with the standard library, 7z and rar with libarchive.

Pooch's own `Unzip` and `Untar` are not used: they don't support 7z and rar.
"""

import tarfile
import zipfile
from pathlib import Path

from small_object.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz", ".7z", ".rar")  # that `extract` reads
CHUNK = 1 << 20


def extract(archive: Path, into: Path) -> None:
    """Extract the files of an archive, whose format is recognised by its content, into a missing folder.

    None lands outside the folder. After a failure the caller removes it.

    Raises:
        UserError: If the file is not an archive, is damaged or encrypted, or can't be read or written here.
    """
    try:
        into.mkdir(parents=True)
        with archive.open("rb") as file:
            head = file.read(4)
        if head.startswith(b"PK"):
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(into)
        elif head in (b"7z\xbc\xaf", b"Rar!"):
            _extract_with_libarchive(archive, into)
        else:
            with tarfile.open(archive) as opened:
                opened.extractall(into, filter="data")
                while opened.fileobj and opened.fileobj.read(CHUNK):  # up to the checksum of the compression
                    pass
    except UserError:
        raise
    except Exception as error:  # on damaged data the libraries raise errors of many types
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        advice = "fetch it again if it is damaged, else repack it as a plain zip"
        raise UserError(f"{archive} cannot be extracted into {into} ({reason}): {advice}") from error


def _extract_with_libarchive(archive: Path, into: Path) -> None:
    try:
        import libarchive
    except (ImportError, OSError, TypeError, AttributeError) as error:  # all but the first: no system library
        advice = "pip install libarchive-c; on Linux also apt install libarchive13"
        raise UserError(f"{archive} can only be read with libarchive ({error}): {advice}") from error
    with libarchive.file_reader(str(archive)) as opened:
        for entry in opened:
            path = (into / entry.pathname).resolve()
            if not path.is_relative_to(into.resolve()):
                raise ValueError(f"{entry.pathname} is outside the folder")
            if entry.isreg:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    file.writelines(entry.get_blocks())
