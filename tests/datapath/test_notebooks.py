from __future__ import annotations

import pytest
from telehelper.datapath.notebooks import CELLS, KERNELS, MAX_NAME, NO_CELL, Kernel, Notebooks

ME, SHE = Kernel(100, 7), Kernel(200, 9)


@pytest.fixture
def notebooks() -> Notebooks:
    found = Notebooks()
    found.greet(ME)
    found.greet(SHE)
    return found


def test_kernels_are_known_by_pid_and_when_they_began(notebooks: Notebooks) -> None:
    assert notebooks.kernels == {100: 7, 200: 9}
    notebooks.greet(ME)
    assert notebooks.kernels == {100: 7, 200: 9}


def test_a_kernel_out_of_sight_is_not_known(notebooks: Notebooks) -> None:
    notebooks.greet(Kernel(0, 0))  # SO_PEERCRED's pid of a process that is not in our pid namespace
    notebooks.introduce(0, "x")
    notebooks.cell_started(0, 1, 1.0)
    assert notebooks.kernels == {100: 7, 200: 9}


def test_each_has_its_name(notebooks: Notebooks) -> None:
    assert notebooks.name_of(ME) == ""
    notebooks.introduce(100, "a.ipynb")
    notebooks.introduce(200, "x" * 10_000)
    assert notebooks.name_of(ME) == "a.ipynb"
    assert len(notebooks.name_of(SHE)) == MAX_NAME
    notebooks.introduce(100, "b.ipynb")
    assert notebooks.name_of(ME) == "b.ipynb"


def test_a_cell_runs_from_its_start_to_its_end_both_included(notebooks: Notebooks) -> None:
    notebooks.cell_started(100, 3, 10.0)
    assert [notebooks.cell_at(ME, at) for at in (9.9, 10.0, 99.0)] == [NO_CELL, 3, 3]
    notebooks.cell_ended(100, 3, 20.0)
    assert [notebooks.cell_at(ME, at) for at in (10.0, 20.0, 20.1)] == [3, 3, NO_CELL]
    assert notebooks.cell_at(SHE, 15.0) == NO_CELL


def test_of_cells_at_once_the_later_counts(notebooks: Notebooks) -> None:
    notebooks.cell_started(100, 3, 10.0)
    notebooks.cell_started(100, 4, 12.0)  # in a subshell
    notebooks.cell_ended(100, 4, 14.0)
    assert [notebooks.cell_at(ME, at) for at in (11.0, 13.0, 15.0)] == [3, 4, 3]


def test_a_cell_that_ran_twice(notebooks: Notebooks) -> None:
    for at in (10.0, 30.0):  # execution counts begin anew with %reset
        notebooks.cell_started(100, 1, at)
        notebooks.cell_ended(100, 1, at + 5)
    assert [notebooks.cell_at(ME, at) for at in (12.0, 20.0, 32.0)] == [1, NO_CELL, 1]


def test_an_end_without_a_start_is_ignored(notebooks: Notebooks) -> None:
    notebooks.cell_ended(100, 3, 20.0)
    notebooks.cell_started(100, 4, 21.0)
    notebooks.cell_ended(100, 3, 22.0)
    assert notebooks.cell_at(ME, 23.0) == 4


def test_strangers_say_nothing(notebooks: Notebooks) -> None:
    notebooks.introduce(300, "x")
    notebooks.cell_started(300, 1, 1.0)
    notebooks.cell_ended(300, 1, 2.0)
    assert notebooks.name_of(Kernel(300, 1)) == ""
    assert notebooks.cell_at(Kernel(300, 1), 1.5) == NO_CELL


def test_what_a_kernel_that_has_left_caused_is_known_on(notebooks: Notebooks) -> None:
    notebooks.introduce(100, "a.ipynb")
    notebooks.cell_started(100, 3, 10.0)
    notebooks.leave(100)
    notebooks.leave(100)
    assert notebooks.kernels == {200: 9}
    assert (notebooks.name_of(ME), notebooks.cell_at(ME, 11.0)) == ("a.ipynb", 3)
    notebooks.cell_ended(100, 3, 12.0)  # no longer heard
    notebooks.greet(ME)  # it has connected again
    assert (notebooks.name_of(ME), notebooks.cell_at(ME, 11.0)) == ("a.ipynb", 3)


def test_the_same_pid_later_is_another_kernel(notebooks: Notebooks) -> None:
    notebooks.introduce(100, "a.ipynb")
    later = Kernel(100, 5000)
    notebooks.greet(later)
    assert notebooks.kernels[100] == 5000
    notebooks.introduce(100, "b.ipynb")
    assert (notebooks.name_of(ME), notebooks.name_of(later)) == ("a.ipynb", "b.ipynb")


def test_bounds() -> None:
    notebooks = Notebooks()
    for pid in range(1, KERNELS + 2):
        notebooks.greet(Kernel(pid, pid))
    assert len(notebooks.kernels) == KERNELS
    assert 1 not in notebooks.kernels
    for cell in range(CELLS + 1):
        notebooks.cell_started(2, cell, float(cell))
        notebooks.cell_ended(2, cell, cell + 0.5)
    assert notebooks.cell_at(Kernel(2, 2), 0.2) == NO_CELL
    assert notebooks.cell_at(Kernel(2, 2), 1.2) == 1
