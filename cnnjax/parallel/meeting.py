"""Waits for all processes of a job before JAX does, which aborts without a word of who is missing.

Process 0 listens where JAX's coordinator will, the others call on it; once all have come, JAX has the port.
"""

import json
import os
import platform
import socket
import time
from collections.abc import Mapping
from typing import Any

from cnnjax.errors import RunError, first_line

_PATIENCE = 0.2
"""Seconds from one look for callers, or one call, to the next."""
_LONGEST_LINE = 4096
_HANDOVER = 30.0
"""Seconds that JAX's coordinator may take to open the port that the meeting has left."""


def meet(coordinator: str, index: int, count: int, timeout: float) -> None:
    """Returns once all processes of the job have come, in each of them.

    Args:
        coordinator: host:port of process 0.
        index: this process, from 0.
        count: all of them.
        timeout: seconds from this call.

    Raises:
        RunError: they have not all come in time (it says which are missing), two have the same index, they differ in
            their count, process 0 cannot be reached, or its port is taken.
    """
    if count == 1:
        return
    host, port = _parted(coordinator)
    if index == 0:
        _Host(coordinator, port, count, timeout).receive()
    else:
        _call_on(host, port, index, count, timeout)


class _Host:
    """Process 0."""

    def __init__(self, coordinator: str, port: int, count: int, timeout: float) -> None:
        self._coordinator, self._port, self._count, self._timeout = coordinator, port, count, timeout
        self._callers: dict[int, tuple[socket.socket, str]] = {}

    def receive(self) -> None:
        end = time.monotonic() + self._timeout
        with _listen(self._port) as listener:
            listener.settimeout(_PATIENCE)
            try:
                while len(self._callers) < self._count - 1:
                    if time.monotonic() > end:
                        raise RunError(self._missing())
                    self._admit(listener)
                    self._forget_who_left()
            except RunError as error:
                self._tell_all({"error": str(error)})
                raise
        # No longer listening: a caller that hears this finds JAX's coordinator next, and nobody else.
        self._tell_all({"all": self._count})

    def _admit(self, listener: socket.socket) -> None:
        try:
            caller, _ = listener.accept()
        except TimeoutError:
            return
        caller.settimeout(5.0)
        said = _hear(caller)
        if said is None or not isinstance(said.get("index"), int):
            caller.close()  # a stranger; whoever is of the job calls again
            return
        index, count, who = said["index"], said.get("count"), str(said.get("who"))
        others = self._callers.get(index)
        self._callers[index if others is None else -1] = (caller, who)
        if count != self._count:
            raise RunError(
                f"process {index} ({who}) was told of {count} processes and process 0 ({_who()}) of {self._count}; "
                "start all with the same --processes"
            )
        if others is not None or index == 0:
            first = others[1] if others is not None else _who()
            raise RunError(f"two processes are number {index}: {first} and {who}; give each its own --process-id")

    def _forget_who_left(self) -> None:
        for index, (caller, _) in list(self._callers.items()):
            caller.setblocking(False)
            try:
                gone = caller.recv(1, socket.MSG_PEEK) == b""
            except BlockingIOError:
                gone = False
            except ConnectionError:
                gone = True
            if gone:
                caller.close()
                del self._callers[index]

    def _missing(self) -> str:
        missing = [index for index in range(1, self._count) if index not in self._callers]
        here = [f"0 ({_who()})", *(f"{index} ({who})" for index, (_, who) in sorted(self._callers.items()))]
        return (
            f"{numbered(missing)} of {self._count} did not come to {self._coordinator} within {self._timeout:g} s "
            f"(parallel.join_timeout); here {'are' if len(here) > 1 else 'is'} {', '.join(here)}; see why the missing "
            "did not start, and start all of them again"
        )

    def _tell_all(self, answer: Mapping[str, Any]) -> None:
        for caller, _ in self._callers.values():
            caller.settimeout(5.0)
            try:
                caller.sendall(_line(answer))
                caller.recv(1)  # it hangs up first, so that the port is free at once
            except OSError:
                continue  # gone since: JAX's own start, which is watched too, finds that out
            finally:
                caller.close()


def _call_on(host: str, port: int, index: int, count: int, timeout: float) -> None:
    end = time.monotonic() + timeout
    reason = "nothing answers"
    while (rest := end - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(5.0, rest)) as caller:
                caller.sendall(_line({"index": index, "count": count, "who": _who()}))
                caller.settimeout(rest + 5.0)  # process 0 may have begun to wait later; its word is better
                answer = _hear(caller)
        except OSError as error:
            reason = error.strerror or first_line(error)
        else:
            if answer is not None and "error" in answer:
                raise RunError(str(answer["error"]))
            if answer is not None:
                _wait_for_jax(host, port)
                return
            reason = "what answers there is not waiting for this job's processes"
        time.sleep(_PATIENCE)
    raise RunError(
        f"process {index} of {count} cannot reach process 0 at {host}:{port} within {timeout:g} s "
        f"(parallel.join_timeout): {reason}; see that process 0 runs there and that the port is open, and start all of "
        "them again"
    )


def _wait_for_jax(host: str, port: int) -> None:
    """Until JAX's coordinator listens: its client would rest for a second after an attempt in vain."""
    end = time.monotonic() + _HANDOVER
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port), timeout=5.0).close()
        except OSError:
            time.sleep(_PATIENCE / 4)
        else:
            return


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise RunError(
            f"process 0 cannot listen on port {port} ({reason}): another process 0 or another program has it; "
            "end that, or choose another port for --coordinator in all processes"
        ) from None


def _parted(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise RunError(f"--coordinator: expected HOST:PORT such as 10.0.0.1:1234, got '{coordinator}'")
    return host.strip("[]"), int(port)


def _hear(caller: socket.socket) -> dict[str, Any] | None:
    """The line that comes, as JSON; None where none comes, or something else."""
    heard = b""
    try:
        while not heard.endswith(b"\n") and len(heard) < _LONGEST_LINE:
            part = caller.recv(_LONGEST_LINE)
            if not part:
                break
            heard += part
        said = json.loads(heard)
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def _line(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said).encode() + b"\n"


def _who() -> str:
    return f"host {platform.node()}, pid {os.getpid()}"


def numbered(indices: list[int]) -> str:
    """`process 1`, or `processes 1, 2 and 4`."""
    words = [str(index) for index in indices]
    if len(words) == 1:
        return f"process {words[0]}"
    return f"processes {', '.join(words[:-1])} and {words[-1]}"
