"""Parallel work: how many threads torch has, and that every piece of work is done once."""

from threading import Barrier, Thread

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbi.parallel import blocks, each_in_one_thread, one_thread


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_one_thread_holds_for_each_user_and_is_undone_at_the_end(three_threads):
    inside, barrier = [], Barrier(2)

    def work():
        barrier.wait()
        with one_thread():
            barrier.wait()  # both threads are inside
            with one_thread():  # again, inside itself
                pass
            inside.append(torch.get_num_threads())
            barrier.wait()

    other = Thread(target=work)
    other.start()
    work()
    other.join()
    with pytest.raises(ValueError, match="inside"), one_thread():
        raise ValueError("inside")
    assert torch.get_num_threads() == 3
    assert inside == [1, 1]


@pytest.mark.parametrize("n_tasks", [1, 2, 7])
def test_each_task_runs_once_and_in_one_thread(three_threads, n_tasks):
    n_threads = [[] for _ in range(n_tasks)]

    def task(i):
        n_threads[i].append(torch.get_num_threads())

    each_in_one_thread(task, [(i,) for i in range(n_tasks)])
    assert n_threads == [[1]] * n_tasks
    assert torch.get_num_threads() == 3


@given(n=st.integers(0, 50), size=st.integers(1, 20))
def test_blocks_cover_every_row_once_and_in_order(n, size):
    parts = [range(n)[rows] for rows in blocks(n, size)]
    assert [row for part in parts for row in part] == list(range(n))
    assert all(1 <= len(part) <= size for part in parts)
