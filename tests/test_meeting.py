"""Processes of a job meet before JAX joins them: here they are threads, and each hears what became of the others."""

import os
import platform
import socket
import threading
import time

import pytest

from cnnjax.errors import RunError
from cnnjax.parallel import meeting
from cnnjax.parallel.meeting import meet

HERE = f"host {platform.node()}, pid {os.getpid()}"


@pytest.fixture
def address(monkeypatch) -> str:
    monkeypatch.setattr(meeting, "_HANDOVER", 0.0)  # no JAX follows
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def meet_all(address: str, *processes: tuple[int, int], timeout: float) -> list[str]:
    """What each (index, count) hears; empty where it met all."""
    heard = [""] * len(processes)

    def come(place: int, index: int, count: int) -> None:
        try:
            meet(address, index, count, timeout)
        except RunError as error:
            heard[place] = str(error)

    threads = [threading.Thread(target=come, args=(place, *each)) for place, each in enumerate(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return heard


def test_all_come_and_leave_the_port(address):
    assert meet_all(address, (2, 3), (0, 3), (1, 3), timeout=20) == ["", "", ""]
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        pass
    assert meet_all(address, (1, 2), (0, 2), timeout=20) == ["", ""]  # the next start of the job


def test_who_is_missing_is_named_to_all_who_came(address):
    since = time.monotonic()
    heard = meet_all(address, (0, 4), (2, 4), timeout=1)
    assert time.monotonic() - since < 10
    assert heard[0] == heard[1]
    assert heard[0].startswith(f"processes 1 and 3 of 4 did not come to {address} within 1 s (parallel.join_timeout);")
    assert f"here are 0 ({HERE}), 2 ({HERE})" in heard[0]


def test_who_came_and_left_is_missing(address):
    waiting = threading.Thread(target=_call_and_leave, args=(address,))
    waiting.start()
    # Of three: with nobody else to wait for, process 0 may go on before it hears that its caller has left.
    [heard] = meet_all(address, (0, 3), timeout=1.5)
    waiting.join()
    assert heard.startswith("processes 1 and 2 of 3 did not come")


def _call_and_leave(address: str) -> None:
    host, _, port = address.rpartition(":")
    while True:
        try:
            with socket.create_connection((host, int(port))) as caller:
                caller.sendall(b'{"index": 1, "count": 3, "who": "nobody"}\n')
                return
        except ConnectionRefusedError:
            time.sleep(0.05)


def test_two_with_the_same_number(address):
    heard = meet_all(address, (0, 3), (1, 3), (1, 3), timeout=20)
    assert set(heard) == {f"two processes are number 1: {HERE} and {HERE}; give each its own --process-id"}


def test_two_that_were_told_of_different_counts(address):
    heard = meet_all(address, (0, 2), (1, 3), timeout=20)
    assert set(heard) == {
        f"process 1 ({HERE}) was told of 3 processes and process 0 ({HERE}) of 2; start all with the same --processes"
    }


def test_strangers_are_not_let_in(address):
    def intrude() -> None:
        host, _, port = address.rpartition(":")
        for noise in (b"GET / HTTP/1.1\r\n\r\n\n", b"[1]\n", b""):
            time.sleep(0.2)
            with socket.create_connection((host, int(port))) as caller:
                caller.sendall(noise)

    stranger = threading.Thread(target=intrude)
    stranger.start()
    [heard] = meet_all(address, (0, 2), timeout=2)
    stranger.join()
    assert heard.startswith("process 1 of 2 did not come")


def test_nobody_answers(address):
    [heard] = meet_all(address, (1, 2), timeout=0.5)
    assert heard.startswith(f"process 1 of 2 cannot reach process 0 at {address} within 0.5 s")
    assert "Connection refused; see that process 0 runs there and that the port is open" in heard


def test_the_port_is_taken(address):
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        [heard] = meet_all(address, (0, 2), timeout=1)
    assert "(Address already in use): another process 0 or another program has it" in heard


@pytest.mark.parametrize("address", ["nowhere", "host:", ":12", "host:x", "host:70000"])
def test_an_address_that_is_none(address):
    with pytest.raises(RunError, match=r"expected HOST:PORT such as 10\.0\.0\.1:1234"):
        meet(address, 1, 2, 1.0)
