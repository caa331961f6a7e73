"""What is lent to threads: reuse, order, and what is given back after an error."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from stpm.runtime.backends.pool import Pool


def test_one_thread_gets_the_same_one_again() -> None:
    made = count()
    pool = Pool(lambda: next(made))
    for _ in range(3):
        with pool.one() as item:
            assert item == 0
    with pool.several(2) as items:
        assert items == [0, 1]
    with pool.several(2) as items, pool.one() as third:
        assert (items, third) == ([0, 1], 2)


def test_an_error_gives_back_what_was_lent() -> None:
    unmade = [1, 0]
    pool = Pool(unmade.pop)
    with pytest.raises(ZeroDivisionError), pool.one() as item:
        raise ZeroDivisionError(item)
    with pytest.raises(IndexError), pool.several(3):
        pass
    with pool.several(2) as items:
        assert items == [0, 1]


def test_threads_never_share_one() -> None:
    threads = 8
    pool = Pool(threading.Lock)

    def use(_: int) -> bool:
        with pool.one() as lock:
            alone = lock.acquire(blocking=False)
            lock.release()
            return alone

    with ThreadPoolExecutor(threads) as executor:
        assert all(executor.map(use, range(2000)))
    with pool.several(threads) as locks:
        assert len(set(map(id, locks))) == threads
