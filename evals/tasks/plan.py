"""What a run that is under way is about to do, on disk, so that one that was killed goes on where it was.

``<data dir>/evals/unfinished/<id>/`` holds plan.json and the answers that were had so far; it goes when all is done.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue, ValidationError

from evals.record import ROOM, new_id
from trendrag.errors import RequestError
from trendrag.types import Frozen, Utc

PLAN = "plan.json"


class Plan(Frozen):
    """``options`` are the command's: a plan is gone on with by the same command. ``done`` are the ids of the runs that
    are kept already, by their model. ``snapshot`` is the directory of the trends that all of it uses."""

    id: str
    task: str
    created_at: Utc
    options: Mapping[str, JsonValue]
    models: tuple[str, ...]
    snapshot: str | None = None
    done: Mapping[str, str] = {}


class Unfinished:
    """A plan and its folder."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder

    def answers(self, model: str) -> Path:
        """Where the answers of ``model`` are kept until its run is."""
        return self.folder / hashlib.sha256(model.encode()).hexdigest()[:16]

    def keep(self) -> None:
        """
        Raises:
            RequestError: the folder can't be written.
        """
        partial = self.folder / f"{PLAN}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with partial.open("w", encoding="utf-8") as file:
                file.write(self.plan.model_dump_json(indent=1))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / PLAN)
        except OSError as error:
            raise RequestError(f"Answers can't be kept in {self.folder}: {error.strerror}. {ROOM}") from error

    def did(self, model: str, run: str) -> None:
        """Notes that the run of ``model`` is kept, and gives up its answers."""
        self.plan = self.plan.model_copy(update={"done": {**self.plan.done, model: run}})
        self.keep()
        shutil.rmtree(self.answers(model), ignore_errors=True)

    def end(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def begin(
    folder: Path, task: str, options: Mapping[str, JsonValue], models: Sequence[str], snapshot: Path | None
) -> Unfinished:
    now = datetime.now(UTC)
    plan = Plan(
        id=new_id(task, now),
        task=task,
        created_at=now,
        options=options,
        models=tuple(models),
        snapshot=str(snapshot) if snapshot else None,
    )
    unfinished = Unfinished(plan, folder / plan.id)
    unfinished.keep()
    return unfinished


def resume(folder: Path, task: str, options: Mapping[str, JsonValue], models: Sequence[str]) -> Unfinished:
    """The newest unfinished run of the same command.

    Raises:
        RequestError: there is none.
    """
    wanted = json.dumps([task, dict(options), list(models)], sort_keys=True)
    others = 0
    for path in sorted(folder.glob(f"*/{PLAN}"), reverse=True):
        try:
            plan = Plan.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if json.dumps([plan.task, dict(plan.options), list(plan.models)], sort_keys=True) == wanted:
            return Unfinished(plan, path.parent)
        others += plan.task == task
    raise RequestError(
        f"No unfinished run of {task} with these options is in {folder}"
        + (f" ({others} with others); give the options that it was begun with" if others else "; leave out --resume")
    )
