"""Brings events to a sink, in order and in a thread of its own: one that is down delays nobody."""

from __future__ import annotations

import threading
import time
from collections import deque

from stpm.runtime.live.sinks import Sink
from stpm.runtime.live.verdict import Event
from stpm.runtime.output.console import note

CAPACITY = 10_000
"""Events that wait for a sink."""
CAPACITY_IMAGES = 32
"""Where they bring their images."""
FIRST_WAIT, LONGEST_WAIT = 0.2, 10.0
"""Seconds until a failed delivery is tried again; doubled each time."""


class Delivery:
    """A bounded queue in front of a sink.

    When it is full, the oldest event that is not on its way is lost, and counted.

    Attributes:
        address: of the sink.
        sent: events that arrived.
        lost: events that there was no room for, or no time at the end.
        state: "" while the sink takes what it is sent, else why it does not.
    """

    def __init__(self, address: str, sink: Sink) -> None:
        self.address = address
        self.sent = 0
        self.lost = 0
        self.state = ""
        self._sink = sink
        self._capacity = CAPACITY_IMAGES if sink.wants_images else CAPACITY
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name=address)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Events that have not arrived yet."""
        return len(self._waiting)

    def put(self, event: Event) -> None:
        """Take an event, at once."""
        kept = event if self._sink.wants_images else Event(event.entry)
        with self._changed:
            if len(self._waiting) >= self._capacity:
                del self._waiting[1]  # the first one may be arriving
                self.lost += 1
                if self.lost == 1:
                    note(f"{self.address}: is too slow or down; the oldest verdicts are dropped")
            self._waiting.append(kept)
            self._changed.notify()

    def close(self, timeout: float) -> None:
        """Deliver what waits, for so many seconds at most, and let go of the sink."""
        self._ends.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout)
        if self._thread.is_alive() or self._waiting:
            left = len(self._waiting)
            self.lost += left
            note(f"{self.address}: {left} verdicts were not delivered; they are in the record")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ends.is_set())
                if not self._waiting:
                    break
                event = self._waiting[0]
            if not self._deliver(event):
                return
            with self._changed:
                self.sent += 1
                self._waiting.popleft()
        self._sink.close()

    def _deliver(self, event: Event) -> bool:
        wait, started = FIRST_WAIT, time.monotonic()
        while True:
            try:
                self._sink.send(event)
            except Exception as error:
                # Sinks are other people's libraries and servers: any of their errors is a failure.
                reason = " ".join(str(error).split()) or type(error).__name__
                if not self.state:
                    note(f"{self.address}: cannot be reached ({reason}); trying again")
                self.state = reason
                if self._ends.wait(wait) and time.monotonic() - started > LONGEST_WAIT:
                    return False
                if self._ends.is_set():
                    time.sleep(FIRST_WAIT)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                if self.state:
                    note(f"{self.address}: accepts verdicts again")
                self.state = ""
                return True
