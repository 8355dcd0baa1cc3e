"""The upload route: takes a file as the body of a request, counts its bytes as they come, and cleans its name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from sartor.base.errors import DataError, SartorError
from sartor.web.workspace import Workspace, clean_name


def add_to(app: FastAPI, desk: Workspace) -> None:
    @app.put("/upload")
    async def upload(request: Request, name: str) -> JSONResponse:
        """Keep the body under uploads/. Answers {file, bytes}, or {error, where, fix} with 400 or 413."""
        try:
            file = await keep(request.stream(), clean_name(name), desk.uploads, desk.most_upload_bytes)
        except SartorError as error:
            status = 413 if error.code == "file-too-large" else 400
            return JSONResponse({"error": str(error.what), "where": str(error.where), "fix": str(error.fix)}, status)
        return JSONResponse({"file": file.relative_to(desk.folder).as_posix(), "bytes": file.stat().st_size})


async def keep(body: AsyncIterator[bytes], name: str, folder: Path, most_bytes: int) -> Path:
    """Write the body to a new file in `folder`; an existing one is never written over.

    Raises: DataError when more than `most_bytes` come, nothing comes, or the disk is full; no file is left then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{os.urandom(8).hex()}.part"
    count = 0
    try:
        with partial.open("xb") as file:
            async for block in body:
                count += len(block)
                if count > most_bytes:
                    raise DataError(
                        f"The file is too large (more than {most_bytes:,} bytes).",
                        name,
                        "Put it into the folder by other means and choose it there.",
                    )
                file.write(block)
        if not count:
            raise DataError("The file is empty.", name, "Choose another file.")
        return _named(partial, folder, name)
    except OSError as error:
        raise DataError(f"The file cannot be kept: {error.strerror}.", name, "Make room on the disk.") from error
    finally:
        partial.unlink(missing_ok=True)


def _named(partial: Path, folder: Path, name: str) -> Path:
    stem, suffix = Path(name).stem, Path(name).suffix
    for number in range(1, 10_000):
        target = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
        with contextlib.suppress(FileExistsError):
            os.link(partial, target)  # fails where the name is taken, in one step
            return target
    raise DataError("There are too many files of this name.", name, "Rename it.")
