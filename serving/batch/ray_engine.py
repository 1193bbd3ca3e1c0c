"""The same rows through Ray Data: on a Ray of this machine's own, or on a cluster.

This process reads, keeps the journal and writes, as the local engine does; images and captions are the workers'. Rows
go out in datasets of some hundred, two of them under way, so that one's last rows don't hold up the next. An outcome is
a row, whatever it is: what fails comes back with its reason and never as an exception of Ray's, which would end all the
dataset. Image paths have to lead to the same files on all machines.
"""

import asyncio
import pickle
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from serving.batch.journal import Known, Settled
from serving.batch.records import Record, parse
from serving.batch.run import Options, open_row_work
from trendrag.errors import ConfigurationError, ModelUnavailable
from trendrag.settings import Settings
from trendrag.types import Usage

DATASET_ROWS = 512
UNDER_WAY = 2
GATHER_S = 0.2
_STOPPED = "stopped"

_OWN = {"address": "local", "include_dashboard": False}


class RowActor:
    """A worker's own fetcher and connections, for as long as it lives; called by Ray Data with batches of rows."""

    def __init__(self, options: Options, settings: Settings, folder: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._work = self._loop.run_until_complete(
            self._stack.enter_async_context(open_row_work(options, settings, Path(folder)))
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = zip(*(batch[name].tolist() for name in ("number", "text", "line", "known")), strict=True)
        settled, usage = self._loop.run_until_complete(self._settle(list(rows)))
        return {"settled": [pickle.dumps(each) for each in settled], "usage": [usage] + [b""] * (len(settled) - 1)}

    async def _settle(self, rows: list[tuple[int, bytes, bytes, bytes]]) -> tuple[list[dict[str, Any]], bytes]:
        before = self._work.usage
        settled = await asyncio.gather(*(self._row(*row) for row in rows))
        after = self._work.usage
        spent = Usage(
            prompt_tokens=after.prompt_tokens - before.prompt_tokens,
            completion_tokens=after.completion_tokens - before.completion_tokens,
        )
        return settled, spent.model_dump_json().encode()

    async def _row(self, number: int, text: bytes, line: bytes, known: bytes) -> dict[str, Any]:
        try:
            record = replace(parse(0, text), number=number)
            return asdict(await self._work.settle(record, line, _unpickled(known)))
        except Exception as error:  # noqa: BLE001  an exception would end the dataset, and with it its other rows
            return {"number": number, _STOPPED: str(error)}


class RayWork:
    """Settles rows on Ray; ``serving.batch.work.RowWork``'s place in the engine."""

    def __init__(self, ray: Any, options: Options, settings: Settings, folder: Path, model: str) -> None:
        self._ray = ray
        self._options = options
        self._settings = settings
        self._folder = folder.resolve()
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[Settled]]] = []
        self._came = asyncio.Event()
        self._places = asyncio.Semaphore(UNDER_WAY)
        self._running: set[asyncio.Task[None]] = set()
        self.model = model
        self.usage = Usage()

    def width(self) -> int:
        """Rows that are worth having here: those of the datasets under way and of the next."""
        return (UNDER_WAY + 1) * DATASET_ROWS // 2

    async def settle(self, record: Record, line: bytes, known: Known) -> Settled:
        """
        Raises:
            ModelUnavailable: the run has to end.
        """
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        item = {"number": record.number, "text": record.text.encode(), "line": line, "known": pickle.dumps(known)}
        self._waiting.append((item, future))
        self._came.set()
        return await future

    async def gather(self) -> None:
        """Sends rows off as they come, until it is cancelled."""
        while True:
            await self._came.wait()
            if len(self._waiting) < DATASET_ROWS:
                await asyncio.sleep(GATHER_S)  # the reader may just be bringing more
            await self._places.acquire()
            rows, self._waiting = self._waiting[:DATASET_ROWS], self._waiting[DATASET_ROWS:]
            if not self._waiting:
                self._came.clear()
            task = asyncio.create_task(self._send(rows))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _send(self, rows: list[tuple[dict[str, Any], "asyncio.Future[Settled]"]]) -> None:
        futures = {item["number"]: future for item, future in rows}
        items = [item for item, future in rows if not future.done()]
        loop = asyncio.get_running_loop()

        def told(outcome: dict[str, Any], usage: bytes) -> None:
            if usage:
                self.usage += Usage.model_validate_json(usage)
            future = futures[outcome["number"]]
            if future.done():
                return
            if _STOPPED in outcome:
                future.set_exception(ModelUnavailable(outcome[_STOPPED]))
            else:
                future.set_result(Settled(**outcome))

        def run() -> None:
            for outcome, usage in self._outcomes(items):
                loop.call_soon_threadsafe(told, outcome, usage)

        try:
            await asyncio.to_thread(run)
            await asyncio.sleep(0)  # until what was told last has been heard
            failed: Exception = RuntimeError("Ray gave back fewer rows than it was given")
        except Exception as error:  # noqa: BLE001  whatever Ray raises, each row must hear of an end
            failed = error
        finally:
            self._places.release()
        for future in futures.values():
            if not future.done():
                future.set_exception(ModelUnavailable(f"Ray could not do its part ({failed}). Go on with --resume."))

    def _outcomes(self, items: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes]]:
        concurrency = self._options.concurrency or 16
        dataset = self._ray.data.from_items(items, override_num_blocks=max(1, min(16, len(items) // concurrency)))
        results = dataset.map_batches(
            RowActor,
            fn_constructor_args=(self._options, self._settings, str(self._folder)),
            batch_size=concurrency,
            compute=self._ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, len(self._options.servers) or 1)),
            num_cpus=0.5,
        )
        for row in results.iter_rows():
            yield _unpickled(row["settled"]), row["usage"]


def _unpickled(data: bytes) -> Any:
    # Between this process and its own actors alone; Ray itself passes all things on in the same way.
    return pickle.loads(data)  # noqa: S301


@asynccontextmanager
async def open_ray_work(options: Options, settings: Settings, folder: Path) -> AsyncIterator[RayWork]:
    """Starts a Ray, or joins the one at ``options.ray_address``, for as long as the context is open.

    Raises:
        ConfigurationError: Ray is not here, or can't be reached; and what ``open_row_work`` raises.
    """
    try:
        import ray  # noqa: PLC0415  an extra
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError("--engine ray needs one more package: pip install 'trendrag[ray]'") from error
    async with open_row_work(options, settings, folder) as here:
        model = here.model  # the servers were asked from here too: what can't work is told before Ray starts
    ours = not ray.is_initialized()
    if ours:
        await asyncio.to_thread(_start, ray, options)
    ray.data.DataContext.get_current().enable_progress_bars = False
    work = RayWork(ray, options, settings, folder, model)
    gathering = asyncio.create_task(work.gather())
    try:
        yield work
    finally:
        gathering.cancel()
        await asyncio.gather(gathering, return_exceptions=True)
        if ours:
            await asyncio.to_thread(ray.shutdown)


def _start(ray: Any, options: Options) -> None:
    # Without an address Ray looks for the cluster that last ran on this machine, and waits for it though it be gone.
    where: dict[str, Any] = {"address": options.ray_address} if options.ray_address else _OWN
    try:
        ray.init(**where, configure_logging=True, log_to_driver=False, logging_level="error")
    except Exception as error:
        raise ConfigurationError(f"Ray can't be reached or started: {error}") from error
