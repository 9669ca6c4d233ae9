"""A second process on the same SQLite file: does what its standard input says, one line an order.

Run by `test_sqlite_processes.py` as a script, with the file's path and the holder's name.
"""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tusserve.contracts import Acquired
from tusserve.stores.sqlite import SQLiteStore


async def listen(store: SQLiteStore, holder: str) -> None:
    async with store.asked(holder) as asks:
        say("listening")
        async for ask in asks:
            say(f"asked for {ask.id}: {','.join(sorted(ask.why))}")


def say(line: object) -> None:
    print(line, flush=True)


def fork_a_child() -> int:
    """One that lives on whatever becomes of its parent, and does nothing."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    return child


async def main(path: Path, holder: str) -> None:
    got: dict[str, Acquired] = {}
    tasks = []
    async with SQLiteStore(path) as store:
        await store.enlist(holder)
        say("ready")
        while line := (await asyncio.to_thread(sys.stdin.readline)).split():
            order, upload = line[0], line[-1]
            if order == "acquire":
                taken = await store.acquire(upload, holder, timedelta(seconds=600))
                if isinstance(taken, Acquired):
                    got[upload] = taken
                say(type(taken).__name__)
            elif order == "commit":
                changed = replace(got[upload].record, offset=99)
                say(await store.commit(got[upload].lease, changed, release=True) is not None)
            elif order == "renew":
                say(not await store.renew([got[upload].lease]))
            elif order == "release":
                say(await store.release(got[upload].lease, clean=False))
            elif order == "count":
                say(await count(store, upload, int(line[1])))
            elif order == "listen":
                tasks.append(asyncio.create_task(listen(store, holder)))
            elif order == "elected":
                say(await store.elected(upload))
            elif order == "fork":
                say(fork_a_child())
            elif order == "leave":
                break
    say("left")


async def count(store: SQLiteStore, upload: str, times: int) -> int:
    """Add 1 to the offset, under a lease each time, as often as it takes."""
    done = 0
    while done < times:
        taken = await store.acquire(upload, f"counter-{os.getpid()}", timedelta(seconds=600))
        if isinstance(taken, Acquired):
            more = replace(taken.record, offset=taken.record.offset + 1)
            assert await store.commit(taken.lease, more, release=True) is not None
            done += 1
        else:
            await asyncio.sleep(0.001)
    return done


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
