"""A budget counted in memory outlives its process, in a small file."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shoestring.errors import BadValueError
from shoestring.gateway import budget_file
from shoestring.gateway.budget_file import counting_with_file, read_spent, write_spent
from shoestring.gateway.counters import NEVER, Ask, Budget
from shoestring.gateway.counters_memory import Spent

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BUDGET = Budget("k:2026-11", 100, 1000.0)


def ask(request: str) -> Ask:
    """A request of 40 tokens."""
    return Ask(id=request, key="k", address="a", tokens=40, budget=BUDGET)


def test_a_restart_does_not_forget(tmp_path: Path):
    """What one process spent, the next one finds; what no budget counts is not written."""
    path = tmp_path / "budgets.json"

    async def work() -> None:
        async with counting_with_file(path) as counters:
            await counters.admit(ask("a"))
            await counters.settle(ask("a"), 35)
            await counters.admit(Ask(id="b", key="x", address="a", tokens=1, concurrent=1))
        async with counting_with_file(path) as counters:
            assert await counters.budget_used(BUDGET) == 35
            assert (await counters.admit(ask("c"))).refused is None
            assert (await counters.admit(ask("d"))).refused == "budget"

    asyncio.run(work())


def test_it_is_written_while_the_process_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A crash forgets only the last few seconds."""
    path = tmp_path / "budgets.json"
    written = asyncio.Event()

    async def work() -> None:
        loop = asyncio.get_running_loop()

        def write(*arguments) -> None:
            write_spent(*arguments)
            loop.call_soon_threadsafe(written.set)

        monkeypatch.setattr(budget_file, "SAVE_S", 0.0)
        monkeypatch.setattr(budget_file, "write_spent", write)
        async with counting_with_file(path) as counters:
            await counters.admit(ask("a"))
            await written.wait()
            written.clear()
            await written.wait()
            assert [one.tokens for one in read_spent(path, datetime.now(UTC))] == [40]

    asyncio.run(work())


def test_periods_that_are_over_are_left_out(tmp_path: Path):
    """Of a day that has passed nothing is read or written again; for good stays for good."""
    path = tmp_path / "budgets.json"
    write_spent(path, [Spent("day", 5, 60.0), Spent("over", 6, -1.0), Spent("ever", 7, NEVER)], NOW)

    assert read_spent(path, NOW) == [Spent("day", 5, 60.0), Spent("ever", 7, NEVER)]
    assert read_spent(path, NOW + timedelta(seconds=61)) == [Spent("ever", 7, NEVER)]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"spent": [1]}', '{"spent": [{"name": 1}]}',
                                  '{"spent": [{"name": "k", "tokens": "x", "ends_utc": null}]}',
                                  "\ud800"])  # fmt: skip
def test_a_damaged_file_is_named_with_its_mend(tmp_path: Path, text: str):
    """No budget is silently begun anew."""
    path = tmp_path / "budgets.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))

    with pytest.raises(BadValueError, match=r"budgets\.json.*delete it") as caught:
        read_spent(path, NOW)
    assert "\n" not in str(caught.value)
