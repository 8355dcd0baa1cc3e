"""The upload route: saves the body of a request as a file, with a size limit and a sanitized name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from sartor.base.errors import DataError, SartorError
from sartor.base.files import system_error
from sartor.web.i18n import translator_for
from sartor.web.workspace import Workspace, clean_name


def add_to(app: FastAPI, workspace: Workspace) -> None:
    @app.put("/upload")
    async def upload(request: Request, name: str) -> JSONResponse:
        """Save the body under uploads/. Answers {file, bytes}, or {error, where, fix} with status 400 or 413."""
        try:
            file = await keep(request.stream(), clean_name(name), workspace.uploads, workspace.max_upload_bytes)
        except SartorError as error:
            status = 413 if error.code == "file-too-large" else 400
            t = translator_for(request)
            return JSONResponse({"error": t(error.what), "where": t(error.where), "fix": t(error.fix)}, status)
        return JSONResponse({"file": file.relative_to(workspace.folder).as_posix(), "bytes": file.stat().st_size})


async def keep(body: AsyncIterator[bytes], name: str, folder: Path, max_bytes: int) -> Path:
    """Write the body to a new file in `folder`; an existing file is never overwritten.

    Raises: DataError if the body is empty or larger than `max_bytes`, or the disk is full; no file is left then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{os.urandom(8).hex()}.part"
    count = 0
    try:
        with partial.open("xb") as file:
            async for block in body:
                count += len(block)
                if count > max_bytes:
                    raise DataError(
                        "The file is larger than {limit:,} bytes.",
                        name,
                        "Copy it into the folder and choose it there.",
                        code="file-too-large",
                        limit=max_bytes,
                    )
                file.write(block)
        if not count:
            raise DataError("The file is empty.", name, "Choose another file.")
        return _named(partial, folder, name)
    except OSError as error:
        raise system_error(error) from error
    finally:
        partial.unlink(missing_ok=True)


def _named(partial: Path, folder: Path, name: str) -> Path:
    """Give the written file its name, or the next one that is free."""
    stem, suffix = Path(name).stem, Path(name).suffix
    for number in range(1, 10_000):
        target = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
        with contextlib.suppress(FileExistsError):
            target.touch(exist_ok=False)  # takes the name in one step, also on disks without hard links
            try:
                return partial.replace(target)
            except OSError:
                target.unlink()
                raise
    raise DataError("Too many files with this name.", name, "Rename it.")
