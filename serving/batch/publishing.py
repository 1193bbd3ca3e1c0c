"""The finished rows to where they belong: as Parquet, or in storage elsewhere; in one step: nobody reads half."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serving.batch.output import replace
from serving.batch.places import Places, is_url, reason, storage, suffixes
from serving.batch.source import Lines
from trendrag.errors import ConfigurationError, StorageError

_ROWS = 10_000


def publish(places: Places) -> None:
    """
    Raises:
        StorageError: it can't be written. The rows are all still there; --resume tries again.
        ConfigurationError: a package is missing, or the records have no common columns.
    """
    if suffixes(places.output)[0] != ".parquet":
        _put(places.rows, places.output)
    else:
        made = places.rows.with_name(f"{places.rows.name}.parquet")  # the journal's lock keeps others off it
        try:
            _parquet(places.rows, made)
            if is_url(places.output):
                _put(made, places.output)
            else:
                replace(made, Path(places.output))
        finally:
            made.unlink(missing_ok=True)
    if is_url(places.output):
        if places.errors.exists():
            _put(places.errors, places.told_errors)
        else:
            _remove(places.told_errors)


def _put(file: Path, output: str) -> None:
    """Object stores show a file when it is whole; other storage is given another name first."""
    system, path = storage(output)
    try:
        if "file" in system.protocol:
            system.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            system.put_file(str(file), path + ".new")
            system.mv(path + ".new", path)
        else:
            system.put_file(str(file), path)
    except Exception as error:  # whatever a storage's client raises
        raise StorageError(
            f"{output} can't be written ({reason(error)}). It is all in {file}; --resume tries again."
        ) from error


def _remove(place: str) -> None:
    system, path = storage(place)
    try:
        if system.exists(path):
            system.rm_file(path)
    except Exception as error:  # as above
        raise StorageError(f"{place}, of an earlier run, can't be removed ({reason(error)}).") from error


def _parquet(rows: Path, made: Path) -> None:
    """Columns are those of all records, each of the widest type that its values need: read twice, so that memory holds
    some thousands of rows only."""
    try:
        import pyarrow  # noqa: PLC0415  an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError("Parquet needs one more package: pip install 'trendrag[parquet]'") from error
    schema = pyarrow.schema([])
    try:
        for piece in _pieces(rows):
            found = pyarrow.Table.from_pylist(piece, _columns(pyarrow, piece)).schema
            schema = pyarrow.unify_schemas([schema, found], promote_options="permissive")
        with parquet.ParquetWriter(made, schema, compression="zstd") as writer:
            for piece in _pieces(rows):
                writer.write_table(pyarrow.Table.from_pylist(piece, schema))
    except (pyarrow.ArrowException, OverflowError, TypeError) as error:
        raise ConfigurationError(
            f"The records have no common columns for Parquet ({error}). Write .jsonl instead; the rows are in {rows}."
        ) from error
    except OSError as error:
        raise StorageError(f"{made} can't be written ({error}). --resume tries again.") from error


def _columns(pyarrow: Any, piece: list[dict[str, Any]]) -> Any:
    """A schema of all names in the piece: pyarrow alone would take the first row's."""
    names = dict.fromkeys(name for row in piece for name in row)
    values = {name: [row.get(name) for row in piece] for name in names}
    return pyarrow.schema([(name, pyarrow.infer_type(column)) for name, column in values.items()])


def _pieces(rows: Path) -> Iterator[list[dict[str, Any]]]:
    piece: list[dict[str, Any]] = []
    for line in Lines(str(rows), suffixes(str(rows))[1]).lines():
        piece.append(json.loads(line))
        if len(piece) == _ROWS:
            yield piece
            piece = []
    if piece:
        yield piece
