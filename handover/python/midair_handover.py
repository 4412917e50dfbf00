"""The app's side of Midair's handover protocol, version 1: one file, Python 3.9 or newer, standard library only.

It is also the model for a client in any other language: `docs/handover-protocol.md` says what goes over the
wire, this file what a client must hold to, and `midair handover conform -- COMMAND` proves it.

Invariants
- Losing the agent changes nothing: the app flies on, looks for it every `RECONNECT_S`, and tells the next one
  what it holds (HELLO, with copies of the descriptors).
- What is held changes by RELEASE, GRANT and DROP alone, one at a time, in the order in which they came.
- The epoch only rises. A RELEASE or GRANT under an epoch that is not above all seen, and any other message under a
  lower one, is refused with FAULT `STALE_EPOCH`, and the descriptors that came with it are closed.
- A RELEASED that did not reach the kernel did not happen: the resource is used again.
- Every received descriptor is with exactly one holder, or closed.

Everything runs on one thread, in one `Loop`; an app watches its own descriptors (the tty) in the same loop:

    loop = Loop()
    session = Session(loop, app='hover', release='v2', socket_path=os.environ['MIDAIR_SOCKET'], reads=[1], writes=1,
                      holders={'rotors': Rotors(loop)}, warm_up=lambda mirror, bounds, answer: answer.done(0, 0.0))
    session.connect()
    loop.run()

Times on the wire are CLOCK_MONOTONIC in microseconds (`now_us`, fields `...Us`). Descriptors are plain numbers:
unwatch one before closing it, since others hold copies and an epoll registration outlives the number.
"""

from __future__ import annotations

import array
import collections
import heapq
import itertools
import json
import math
import os
import re
import selectors
import socket
import struct
import sys
import time
from typing import Any, Callable, Deque, Dict, Iterable, List, Optional, Sequence, Tuple

PROTOCOL_VERSION = 1
RESOURCES = ('camera', 'listener', 'connections', 'rotors')
LINE_BYTES_MAX = 256 * 1024        # without its newline
PAYLOAD_BYTES_MAX = 224 * 1024     # of one RELEASED line; the rest is its envelope
DESCRIPTORS_MAX = 250              # of one line; the kernel's SCM_MAX_FD is 253
GRANT_LINES_MAX = 64
NAME_CHARS_MAX, TEXT_CHARS_MAX = 128, 2_000
DURATION_MS_MAX = 600_000
SAFE_INTEGER_MAX = 2**53 - 1
SEND_QUEUE_BYTES_MAX = 8 * 1024 * 1024
RECEIVE_BYTES = 64 * 1024          # of one turn of the loop: a control loop may wait behind it
STEPS_WAITING_MAX = 8
REFUSALS_PER_S_MAX = 50            # beyond, a flood would cost flight more than its answers tell
SNAP_INTERVAL_MS = 20
RECONNECT_S = 0.2
MIRROR_WAIT_S = 0.1                # SHADOW follows its OFFER at once, and does not come at a first start
MIRROR_RECORD_BYTES_MAX = 64 * 1024
SHADOW_CYCLES_FACTOR = 8           # who has not settled in so many times the cycles asked for will not

Descriptors = Sequence[Tuple[str, int]]


def now_us() -> int:
    """CLOCK_MONOTONIC in microseconds, as in every `...Us` field."""
    return time.monotonic_ns() // 1000


def close_all(descriptors: Iterable[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def same_file(one: int, other: int) -> bool:
    """Whether two descriptors are of the same file: another descriptor of the same tty is."""
    return os.path.samestat(os.fstat(one), os.fstat(other))


class ProtocolError(Exception):
    """The agent's fault: its connection ends. `code` as in docs/handover-protocol.md."""

    def __init__(self, code: str, text: str):
        super().__init__(f'{code}: {text}')
        self.code = code


class HolderError(Exception):
    """A resource that could not be taken or let go; the agent hears of it as a FAULT of this `code`."""

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code = code


class Loop:
    """An event loop of descriptors and timers on `selectors`. Callbacks must not block."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: List[list] = []
        self._order = itertools.count()
        self._stopped = False

    def watch(self, fd: int, callback: Callable[[int], None], events: int = selectors.EVENT_READ) -> None:
        """Calls back with the events that hold (level-triggered). Again for one watched already: changes it."""
        try:
            self._selector.modify(fd, events, callback)
        except KeyError:
            self._selector.register(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Idempotent. To be called before the descriptor is closed."""
        try:
            self._selector.unregister(fd)
        except KeyError:
            pass

    def later(self, seconds: float, callback: Callable[[], None]) -> list:
        """Once, from now; the result is for `cancel`."""
        timer = [time.monotonic() + seconds, next(self._order), callback]
        heapq.heappush(self._timers, timer)
        return timer

    @staticmethod
    def cancel(timer: Optional[list]) -> None:
        if timer is not None:
            timer[2] = None

    def stop(self) -> None:
        self._stopped = True

    def run(self) -> None:
        """Until `stop`, or until a callback raises."""
        self._stopped = False
        while not self._stopped:
            self.turn()

    def turn(self) -> None:
        """Waits for the next descriptor or timer, and calls back."""
        while self._timers and self._timers[0][2] is None:
            heapq.heappop(self._timers)
        wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        for key, events in self._selector.select(wait):
            # A callback of this turn may have unwatched it, or given its number to another.
            now = self._selector.get_map().get(key.fd)
            if now is not None and now.data == key.data and events & now.events:
                key.data(events & now.events)
        due = time.monotonic()
        while self._timers and self._timers[0][0] <= due:
            callback = heapq.heappop(self._timers)[2]
            if callback is not None:
                callback()


# ------------------------------------------------------------------ messages

def _whole(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value <= SAFE_INTEGER_MAX and value == int(value)


def _name(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= NAME_CHARS_MAX


def _one_of(*values: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in values


def _measure(value: Any) -> bool:
    return not isinstance(value, bool) and value >= 0


def _object(**fields: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(
        name in value and holds(value[name]) for name, holds in fields.items())


# A field whose name ends with a question mark may be missing; none may be null, but a payload.
_COMMON = {
    'epoch': _whole,
    'fds?': lambda value: isinstance(value, list) and len(value) <= DESCRIPTORS_MAX and all(map(_name, value)),
}
_RESOURCE = {'resource': _one_of(*RESOURCES)}
_KEY = re.compile('[0-9A-Za-z+/]{42}([0-9A-Za-z+/]=|==)')  # 32 bytes in base64
_FIELDS: Dict[str, Dict[str, Callable[[Any], bool]]] = {
    'OFFER': {
        'role': _one_of('owner', 'candidate'),
        'shadow?': _object(cyclesMin=_whole, divergenceMax=_measure),
    },
    'SHADOW': {
        'role': _one_of('source', 'shadow'),
        'snapIntervalMs?': lambda value: _measure(value) and 1 <= value <= SNAP_INTERVAL_MS,
        'payload?': lambda value: isinstance(value, dict),
    },
    'PREPARE': {},
    'RELEASE': {**_RESOURCE, 'deadlineMs': lambda value: _measure(value) and value <= DURATION_MS_MAX},
    'GRANT': {
        **_RESOURCE,
        'from': _one_of('release', 'snap', 'start'),
        'payload': lambda value: value is None or isinstance(value, dict),
        'more?': lambda value: isinstance(value, bool),
        'signing?': _object(key=lambda value: _KEY.fullmatch(value) is not None,
                            linkId=lambda value: _whole(value) and value <= 255, lastTimestamp=_whole),
    },
    'DROP': _RESOURCE,
    'COMMIT': {'role': _one_of('owner', 'retired')},
    'REVOKE': {'code': _name, 'text': lambda value: isinstance(value, str) and len(value) <= TEXT_CHARS_MAX},
}


def _no_constant(text: str) -> None:
    raise ValueError(f'{text} is not JSON')


def parse_agent_message(line: bytes) -> Dict[str, Any]:
    """One line without its newline, at most `LINE_BYTES_MAX` bytes; `fds` and `more` are filled in.

    Raises ProtocolError `INVALID_JSON`, `UNKNOWN_TYPE`, `INVALID_MESSAGE`.
    """
    try:
        message = json.loads(line.decode('utf-8'), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError('INVALID_JSON', 'the line is not JSON') from error
    kind = message.get('type') if isinstance(message, dict) else None
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise ProtocolError('UNKNOWN_TYPE', f'no message of type {str(kind)[:80]}')
    for name, holds in {**_COMMON, **_FIELDS[kind]}.items():
        field = name.rstrip('?')
        try:
            good = holds(message[field]) if field in message else field != name
        except TypeError:
            good = False
        if not good:
            raise ProtocolError('INVALID_MESSAGE', f'{kind}.{field}')
    message.setdefault('fds', [])
    message.setdefault('more', False)
    message['epoch'] = int(message['epoch'])
    return message


def split(payload: Dict[str, Any], descriptors: Descriptors) -> List[Tuple[Dict[str, Any], Descriptors]]:
    """A payload as the lines of one RELEASED: each of `connections` goes with the descriptor that its `fd` names.

    Raises ProtocolError `LINE_TOO_LONG`: an entry, or all but the connections, does not fit one line.
    """
    def size(value: Any) -> int:
        return len(json.dumps(value, separators=(',', ':'), allow_nan=False)) + 1

    connections = payload.get('connections')
    lines: List[Tuple[Dict[str, Any], Descriptors]] = []
    if not isinstance(connections, list):
        lines.append((payload, descriptors))
    else:
        rest = {key: value for key, value in payload.items() if key != 'connections'}
        by_name = dict(descriptors)
        entries: list = []
        fds: List[Tuple[str, int]] = []
        used = size(rest)
        for entry in connections:
            if entries and (len(fds) == DESCRIPTORS_MAX or used + size(entry) > PAYLOAD_BYTES_MAX - 32):
                lines.append(({'connections': entries}, fds))
                entries, fds, used = [], [], size(rest)
            entries.append(entry)
            used += size(entry)
            if entry.get('fd') in by_name:
                fds.append((entry['fd'], by_name[entry['fd']]))
        lines.append(({**rest, 'connections': entries}, fds))
    if any(size(part) > PAYLOAD_BYTES_MAX for part, _ in lines):
        raise ProtocolError('LINE_TOO_LONG', 'a payload does not fit one line')
    return lines


# ------------------------------------------------------------------ the wire

class LineSocket:
    """Lines with descriptors (SCM_RIGHTS) over a connected unix stream socket.

    A line's descriptors ride with its first byte, in a sendmsg that holds bytes of that line only. The kernel may put
    plain lines before such bytes into one read, but ends the read after them: so descriptors belong to the last line
    that begins in the read which brought them.
    """

    def __init__(self, loop: Loop, sock: socket.socket, on_message: Callable[[Dict[str, Any], Dict[str, int]], None],
                 on_close: Callable[[Optional[Exception]], None]):
        sock.setblocking(False)
        self._loop, self._sock, self._on_message, self._on_close = loop, sock, on_message, on_close
        self.closed = False
        self._mute = False  # the agent reads no more; its last words are still to be read
        self._partial = bytearray()
        self._received: List[int] = []  # descriptors of the line whose end has not come
        self._queue: Deque[list] = collections.deque()  # [bytes, our copies of descriptors, settled]
        self.queued_bytes = 0
        loop.watch(sock.fileno(), self._ready)

    def send(self, message: Dict[str, Any], descriptors: Descriptors = (),
             settled: Callable[[bool], None] = lambda delivered: None) -> bool:
        """At once if the kernel takes it, else after those that wait. The descriptors stay the caller's.

        `settled` is called once: True when the kernel has the whole line, False when it never will.
        Raises ProtocolError `LINE_TOO_LONG`, `WRONG_DESCRIPTORS`, ValueError (not JSON): nothing was sent.
        """
        line = {**message, 'fds': [name for name, _ in descriptors]}
        data = json.dumps(line, separators=(',', ':'), allow_nan=False).encode() + b'\n'
        if len(data) - 1 > LINE_BYTES_MAX:
            raise ProtocolError('LINE_TOO_LONG', f'a line of {len(data) - 1} bytes may not be sent')
        if len(descriptors) > DESCRIPTORS_MAX:
            raise ProtocolError('WRONG_DESCRIPTORS', f'{len(descriptors)} descriptors do not fit one line')
        fds = [fd for _, fd in descriptors]
        sent = None if self.closed or self._mute else 0 if self._queue else self._write(data, fds)
        if sent is None or sent == len(data):
            settled(sent is not None)
            return sent is not None
        if self.queued_bytes + len(data) > SEND_QUEUE_BYTES_MAX:
            settled(False)
            self._end(OSError(f'the agent left {self.queued_bytes} bytes unread'))
            return False
        self._queue.append([data[sent:], [os.dup(fd) for fd in fds] if sent == 0 else [], settled])
        self.queued_bytes += len(data) - sent
        self._loop.watch(self._sock.fileno(), self._ready, selectors.EVENT_READ | selectors.EVENT_WRITE)
        return True

    def close(self) -> None:
        """Without `on_close`: who calls this knows."""
        self._on_close = lambda error: None
        self._end()

    def _write(self, data: bytes, fds: List[int]) -> Optional[int]:
        """Bytes that went, descriptors with the first; None: the agent is gone."""
        at = 0
        try:
            while at < len(data):
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds and at == 0 else []
                at += self._sock.sendmsg([memoryview(data)[at:]], rights, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._mute = True
            self._drop_queue()
            return None
        return at

    def _flush(self) -> None:
        while self._queue:
            data, fds, settled = self._queue[0]
            sent = self._write(data, fds)
            if sent is None:
                break
            self.queued_bytes -= sent
            if sent > 0:
                close_all(fds)
                self._queue[0][:2] = [data[sent:], []]
            if sent < len(data):
                return
            self._queue.popleft()
            settled(True)
        if not self.closed:
            self._loop.watch(self._sock.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ and not self.closed:
            self._receive()

    def _receive(self) -> None:
        received: List[int] = []
        try:
            chunk, control, flags, _ = self._sock.recvmsg(
                RECEIVE_BYTES, socket.CMSG_SPACE(4 * (DESCRIPTORS_MAX + 3)), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received += array.array('i', data[:len(data) - len(data) % 4])
        if flags & socket.MSG_CTRUNC or not chunk:
            close_all(received)
            cut = ProtocolError('TRUNCATED_CONTROL_DATA', 'descriptors were lost')
            self._end(cut if flags & socket.MSG_CTRUNC else None)
            return
        self._take(chunk, received)

    def _take(self, chunk: bytes, received: List[int]) -> None:
        last = chunk.rfind(b'\n', 0, len(chunk) - 1)
        if received and last < 0 and self._partial:
            close_all(received)
            self._end(ProtocolError('WRONG_DESCRIPTORS', 'descriptors came inside a line'))
            return
        start = 0
        while start < len(chunk) and not self.closed:
            if received and start == last + 1:
                self._received, received = received, []
            end = chunk.find(b'\n', start)
            self._partial += chunk[start:] if end < 0 else chunk[start:end]
            if len(self._partial) > LINE_BYTES_MAX:
                self._end(ProtocolError('LINE_TOO_LONG', f'over {LINE_BYTES_MAX} bytes'))
            elif end >= 0:
                self._line()
            start = len(chunk) if end < 0 else end + 1
        close_all(received)  # a line before theirs ended the connection

    def _line(self) -> None:
        line, self._partial = bytes(self._partial), bytearray()
        try:
            message = parse_agent_message(line)
            names = message['fds']
            if len(names) != len(self._received) or len(set(names)) != len(names):
                raise ProtocolError('WRONG_DESCRIPTORS', f'{len(names)} named, {len(self._received)} received')
        except ProtocolError as error:
            self._end(error)
            return
        descriptors, self._received = dict(zip(names, self._received)), []
        self._on_message(message, descriptors)

    def _drop_queue(self) -> None:
        waiting, self._queue, self.queued_bytes = self._queue, collections.deque(), 0
        for _, fds, settled in waiting:
            close_all(fds)
            settled(False)

    def _end(self, error: Optional[Exception] = None) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        close_all(self._received)
        self._received = []
        self._drop_queue()
        self._on_close(error)


# ------------------------------------------------------------------ the mirror

class MirrorSource:
    """The prior's end of the shadow: records of what its link read and wrote. Takes the descriptor over.

    Never waits: a record that the socket pair has no room for is dropped and counted, whole.
    """

    def __init__(self, fd: int):
        os.set_blocking(fd, False)
        self._fd: Optional[int] = fd
        self._tail = b''
        self.dropped = 0

    def record(self, outgoing: bool, data: bytes) -> None:
        if self._fd is None or not data:
            return
        self._tail = self._write(self._tail)
        if self._tail or len(data) > MIRROR_RECORD_BYTES_MAX:
            self.dropped += 1
            return
        record = struct.pack('<BI', outgoing, len(data)) + data
        rest = self._write(record)
        if len(rest) == len(record):
            self.dropped += 1
        else:
            self._tail = rest

    def _write(self, data: bytes) -> bytes:
        try:
            return data[os.write(self._fd, data):] if data and self._fd is not None else b''
        except BlockingIOError:
            return data
        except OSError:
            self.close()
            return b''

    @property
    def open(self) -> bool:
        return self._fd is not None

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class Mirror:
    """The candidate's end: set `on_record(outgoing, data)`. Without a descriptor there is no prior to follow.

    `payload` is the rotors' payload of who is mirrored, as of its last heartbeat: go on from there, since what a controller
    has learned is not in what it reads. None: not known, or of a version that is not read here.
    """

    def __init__(self, loop: Loop, fd: Optional[int] = None, payload: Optional[Dict[str, Any]] = None):
        self._loop, self._fd, self._bytes = loop, fd, bytearray()
        self.payload = payload
        self.available = fd is not None
        self.on_record: Callable[[bool, bytes], None] = lambda outgoing, data: None
        if fd is not None:
            os.set_blocking(fd, False)
            loop.watch(fd, self._ready)

    def _ready(self, events: int) -> None:
        try:
            chunk = os.read(self._fd, RECEIVE_BYTES) if self._fd is not None else b''
        except BlockingIOError:
            return
        except OSError:
            chunk = b''
        if not chunk:
            self.close()
            return
        self._bytes += chunk
        while len(self._bytes) >= 5 and self._fd is not None:
            kind, length = struct.unpack_from('<BI', self._bytes)
            if length > MIRROR_RECORD_BYTES_MAX:
                self.close()
                return
            if len(self._bytes) < 5 + length:
                return
            data = bytes(self._bytes[5:5 + length])
            del self._bytes[:5 + length]
            self.on_record(kind != 0, data)

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            self._loop.unwatch(fd)
            os.close(fd)


class Diverged(Exception):
    """The candidate never came near enough to the prior; the agent hears of it as a FAULT of this code."""
    code = 'DIVERGED'


class ShadowJudge:
    """Whether a candidate flies as the prior does, by one figure a cycle: ready after `cyclesMin` of them in a row that
    are at most `divergenceMax` (the app's own unit). `bounds`: as `warm_up` is given them."""

    def __init__(self, bounds: Dict[str, Any]):
        self._cycles_min, self._divergence_max = bounds['cyclesMin'], bounds['divergenceMax']
        self._start = time.monotonic()
        self._compared = 0
        self._worst = (0.0, 0, 0.0)  # how far, at which cycle, after how many milliseconds
        self.cycles, self.divergence = 0, 0.0  # in a row, and the largest divergence among them

    def add(self, divergence: float) -> bool:
        """How far this cycle's output is from the prior's, 0 or more. Returns whether it is ready. Raises Diverged, which
        says by how much and when, if it has not settled in `SHADOW_CYCLES_FACTOR` times the cycles asked for."""
        self._compared += 1
        good = divergence <= self._divergence_max
        self.cycles, self.divergence = (self.cycles + 1, max(self.divergence, divergence)) if good else (0, 0.0)
        # The first cycles of a controller that starts from nothing are far off; what it settles to is the news.
        if not divergence <= self._worst[0] and self._compared > self._cycles_min:
            self._worst = (divergence, self._compared, (time.monotonic() - self._start) * 1000)
        if self.cycles >= self._cycles_min:
            return True
        if self._compared >= max(1, self._cycles_min) * SHADOW_CYCLES_FACTOR:
            worst, cycle, at_ms = self._worst
            raise Diverged(
                f'its output was up to {worst:.3g} from the prior\'s, at cycle {cycle}, {at_ms:.0f} ms into the shadow; '
                f'{divergence:.3g} at the end, at most {self._divergence_max} is allowed for {self._cycles_min} cycles in a row')
        return False


# ------------------------------------------------------------------ the session

class Grant:
    """`origin`: 'release' (the prior's own words), 'snap' (its last heartbeat: it died) or 'start' (`payload` is None).
    `descriptors`: by name, the holder's from here on. `signing`: rotors only, where the device signs its link: `key`
    (base64), `linkId`, `lastTimestamp` (10 us since 2015). Every frame is to be later than it, and than the payload's own
    `signing`: {`linkId`, `lastTimestamp`}, which a rotors payload has then (release and heartbeat; never the key)."""

    def __init__(self, origin: str, payload: Optional[Dict[str, Any]], descriptors: Dict[str, int], epoch: int,
                 signing: Optional[Dict[str, Any]] = None):
        self.origin, self.payload, self.descriptors, self.epoch = origin, payload, descriptors, epoch
        self.signing = signing


class Holder:
    """What an app implements for each resource. Between `release` being answered and the next `grant` it neither
    reads nor writes. `answer.done(...)` or `answer.fail(error)` may be called at once or later; raising also fails."""

    def release(self, deadline_ms: float, answer: 'Answer') -> None:
        """Stop using it, then `answer.done(payload, descriptors)`: all that the successor needs. `deadline_ms` is how
        long the agent waits, from now. Descriptors (connections only) stay the holder's until `drop`."""
        raise NotImplementedError

    def grant(self, grant: Grant, answer: 'Answer') -> None:
        """Take it, then `answer.done()` once it was used as the owner (rotors: once the first command is written)."""
        raise NotImplementedError

    def renew(self, grant: Grant, answer: 'Answer') -> None:
        """It is ours already and was granted anew under a higher epoch. As `grant`; go on by its descriptors if they are of
        another file than yours (see `same_file`): a gate gives each epoch a channel of its own."""
        close_all(grant.descriptors.values())
        answer.done()

    def drop(self) -> None:
        """Close every copy of its descriptors. Idempotent."""
        raise NotImplementedError

    def descriptor(self) -> Optional[int]:
        """For HELLO after the agent came back; None for connections."""
        return None

    def mirror(self, fd: int) -> None:
        """Rotors only: mirror all input and output to this descriptor (taken over): see MirrorSource."""
        os.close(fd)

    def mirroring(self) -> bool:
        """Rotors only: whether somebody still reads the mirror."""
        return False


class Answer:
    """An answer to one step, or to the warm-up. The first call counts; after the step was given up none does."""

    def __init__(self, done: Callable[..., None], failed: Callable[[Exception], None]):
        self._done, self._failed, self._open = done, failed, True

    def done(self, *result: Any) -> None:
        """Of a release: payload, descriptors if any. Of a warm-up: cycles, divergence. Else nothing."""
        if self._open:
            self._open = False
            try:
                self._done(*result)
            except (ProtocolError, ValueError, TypeError) as error:  # a payload that fits no line, or is not JSON
                self._failed(error)

    def fail(self, error: Exception) -> None:
        if self._open:
            self._open = False
            self._failed(error)


class Session:
    """One app's session with its device's agent.

    app, release  names of at most `NAME_CHARS_MAX` characters (MIDAIR_APP, MIDAIR_RELEASE)
    socket_path   MIDAIR_SOCKET
    reads, writes versions of the rotors' `state` that this release can take over, and the one that it hands over
    holders       a Holder for each resource that this app can own
    warm_up       `warm_up(mirror, bounds, answer)`: follow the prior until good enough (see ShadowJudge), then
                  `answer.done(cycles, divergence)`, or `answer.fail(error)`. At a first start there is nobody to follow:
                  `mirror.available` is False and `bounds` None
    follow        `follow(mirror)`: the successor flies and is in its probation; keep up to date, and send nothing
    snapshot      the owner's heartbeat payload, every `SNAP_INTERVAL_MS` while it holds the rotors; as often as the agent
                  asks while another could take over
    health        beside it: `{'cycles': control cycles so far, 'error': distance to the setpoint, if known}`
    on_retire     the successor has everything for good; when it returns the agent is asked to stop this process
    on_revoked    this candidate gets nothing and is about to be stopped; by default the process exits
    """

    def __init__(self, loop: Loop, *, app: str, release: str, socket_path: str, reads: List[int], writes: int,
                 holders: Dict[str, Holder], warm_up: Callable[[Mirror, Optional[Dict[str, Any]], 'Answer'], None],
                 follow: Optional[Callable[[Mirror], None]] = None,
                 snapshot: Callable[[], Optional[Dict[str, Any]]] = lambda: None,
                 health: Callable[[], Dict[str, Any]] = dict,
                 on_owner: Callable[[], None] = lambda: None, on_retire: Callable[[], None] = lambda: None,
                 on_revoked: Callable[[str, str], None] = lambda code, text: sys.exit(0),
                 log: Callable[[str, str], None] = lambda level, text: None):
        self._loop, self._path, self._holders, self._warm_up = loop, socket_path, holders, warm_up
        self._identity = {'app': app, 'release': release, 'reads': reads, 'writes': writes}
        self._follow, self._health = follow, health
        self._snapshot, self._on_owner, self._on_retire = snapshot, on_owner, on_retire
        self._on_revoked, self._log = on_revoked, log
        self.epoch = 0
        self._socket: Optional[LineSocket] = None
        self._closed = False
        self._held: Dict[str, int] = {}  # resource: the epoch under which it was granted last
        self._joining: Optional[dict] = None  # a GRANT of several lines, as far as it has come
        self._running: List[dict] = []  # the step that is carried out, and a GRANT of the rotors that overtook it
        self._waiting: Deque[dict] = collections.deque()
        self._retry: Optional[list] = None
        self._heartbeat: Optional[list] = None
        self._mirror: Optional[Mirror] = None
        self._begin: Optional[Callable[[Mirror], None]] = None  # a warm-up that waits for its mirror
        self._warming: Optional[object] = None
        self._readiness = {'cycles': 0, 'divergence': 0.0}
        self._refusals = (0, 0)  # in this second
        self._candidate = False  # offered, and not granted the rotors yet
        self._interval_ms: float = SNAP_INTERVAL_MS
        self._signing: Optional[Dict[str, Any]] = None  # of the rotors' last grant

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def owns(self, resource: str) -> bool:
        return resource in self._held

    def connect(self) -> None:
        """Looks for the agent, now and every `RECONNECT_S` until it is there."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            self._retry = self._loop.later(RECONNECT_S, self.connect)
            return
        self._socket = LineSocket(self._loop, sock, self._heard, self._lost)
        held = [resource for resource in RESOURCES if resource in self._held]
        copies = [(resource, self._holders[resource].descriptor()) for resource in held]
        fds = [(resource, fd) for resource, fd in copies if fd is not None]
        # Those with a descriptor first, so that `fds` and `holds` go together.
        holds = [resource for resource, _ in fds] + [resource for resource, fd in copies if fd is None]
        hello = {'type': 'HELLO', 'v': PROTOCOL_VERSION, 'epoch': self.epoch, **self._identity, 'holds': holds}
        self._socket.send(hello, fds)

    def fault(self, code: str, text: str) -> None:
        """Tells the agent what went wrong here: before the commit it takes everything back to the prior."""
        self._log('error', f'{code}: {text}')
        self._send({'type': 'FAULT', 'epoch': self.epoch, 'code': code[:NAME_CHARS_MAX], 'text': text[:TEXT_CHARS_MAX]})

    def close(self) -> None:
        """Leaves the agent and drops everything. For the end of the process, not for flight."""
        self._closed = True
        self._loop.cancel(self._retry)
        self._end_shadow()
        if self._socket is not None:
            sock, self._socket = self._socket, None
            sock.close()
        self._forget()
        for resource in RESOURCES:
            self._drop(resource)

    def _send(self, message: Dict[str, Any]) -> None:
        if self._socket is not None:
            self._socket.send(message)

    def _lost(self, error: Optional[Exception]) -> None:
        self._socket = None
        self._end_shadow()
        self._forget()
        self._log('warn', f'the agent is gone; flying on ({error or "it closed the connection"})')
        if not self._closed:
            self._retry = self._loop.later(RECONNECT_S, self.connect)

    def _forget(self) -> None:
        """What the agent asked and was not begun is forgotten. What is held is held."""
        for step in [self._joining or {}, *self._waiting]:
            close_all(step.get('descriptors', {}).values())
        self._joining = None
        self._waiting.clear()

    # -------------------------------------------------------------- messages

    def _heard(self, message: Dict[str, Any], descriptors: Dict[str, int]) -> None:
        kind, epoch = message['type'], message['epoch']
        step = kind in ('RELEASE', 'GRANT')
        joining = self._joining
        continued = (kind == 'GRANT' and joining is not None
                     and (joining['epoch'], joining['resource']) == (epoch, message['resource']))
        if epoch < self.epoch or (step and epoch == self.epoch and not continued):
            close_all(descriptors.values())
            second = int(time.monotonic())
            self._refusals = (second, self._refusals[1] + 1 if self._refusals[0] == second else 1)
            if self._refusals[1] <= REFUSALS_PER_S_MAX:
                self.fault('STALE_EPOCH', f'{kind} of epoch {epoch}, already at {self.epoch}')
            return
        self.epoch = epoch
        if kind == 'GRANT':
            self._join(message, descriptors, continued)
            return
        if kind == 'SHADOW':
            self._shadow(message, descriptors)
            return
        close_all(descriptors.values())
        if kind == 'OFFER' and message['role'] == 'candidate':
            self._offered(epoch, message.get('shadow'))
        elif kind == 'PREPARE':
            self._send({'type': 'READY', 'epoch': epoch, **self._readiness})
        elif kind == 'RELEASE':
            self._enqueue(message)
        elif kind == 'DROP':
            self._drop(message['resource'])
            if message['resource'] == 'rotors':
                self._end_shadow()
        elif kind == 'COMMIT':
            self._committed(message['role'], epoch)
        elif kind == 'REVOKE':
            self._revoked(message['code'], message['text'])

    def _shadow(self, message: Dict[str, Any], descriptors: Dict[str, int]) -> None:
        fd = descriptors.pop('mirror', None)
        close_all(descriptors.values())
        if fd is None:
            return
        flies = 'rotors' in self._held
        if message['role'] == 'source' and flies:
            self._holders['rotors'].mirror(fd)
            self._interval_ms = message.get('snapIntervalMs', SNAP_INTERVAL_MS)
            self._beat(True)
        elif message['role'] == 'shadow' and (self._candidate or (self._follow is not None and not flies)):
            if self._mirror is not None:
                self._mirror.close()
            payload = message.get('payload')
            is_read = payload is not None and payload.get('stateVersion') in self._identity['reads']
            self._mirror = Mirror(self._loop, fd, payload if is_read else None)
            if self._begin is not None:
                self._begin(self._mirror)
            elif not self._candidate and self._follow is not None:
                self._follow(self._mirror)
        else:
            os.close(fd)

    def _offered(self, epoch: int, bounds: Optional[Dict[str, Any]]) -> None:
        self._candidate = True
        token = self._warming = object()

        def ready(cycles: int, divergence: float) -> None:
            if not _whole(cycles) or not 0 <= divergence < math.inf:
                raise ValueError(f'not a readiness: {cycles} cycles, divergence {divergence}')
            if self._warming is token:
                self._readiness = {'cycles': cycles, 'divergence': divergence}
                self._send({'type': 'READY', 'epoch': epoch, **self._readiness})

        def failed(error: Exception) -> None:
            if self._warming is token:
                self.fault(getattr(error, 'code', 'WARM_UP_FAILED'), str(error))

        def begin(mirror: Mirror) -> None:
            if self._begin is not begin:
                return
            self._begin = None
            answer = Answer(ready, failed)
            try:
                self._warm_up(mirror, bounds, answer)
            except Exception as error:
                answer.fail(error)

        self._begin = begin
        if self._mirror is not None:
            begin(self._mirror)
        else:
            self._loop.later(MIRROR_WAIT_S, lambda: begin(Mirror(self._loop)))

    def _end_shadow(self) -> None:
        self._warming = self._begin = None
        if self._mirror is not None:
            self._mirror.close()
        self._mirror = None

    def _committed(self, role: str, epoch: int) -> None:
        self._end_shadow()
        if role == 'owner':
            self._interval_ms = SNAP_INTERVAL_MS
            self._on_owner()
        elif self._held:
            self.fault('UNEXPECTED_MESSAGE', f'retired while holding {", ".join(self._held)}')
        else:
            try:
                self._on_retire()
            except Exception as error:
                self._log('error', f'the last work before retiring failed: {error}')
            self._send({'type': 'RETIRE', 'epoch': epoch})

    def _revoked(self, code: str, text: str) -> None:
        if self._held:  # whoever flies, flies on
            self.fault('UNEXPECTED_MESSAGE', f'revoked while holding {", ".join(self._held)}')
            return
        self._log('warn', f'revoked: {code}: {text}')
        self.close()
        self._on_revoked(code, text)

    # -------------------------------------------------------------- steps

    def _join(self, message: Dict[str, Any], descriptors: Dict[str, int], continued: bool) -> None:
        """Puts together the lines of one GRANT; the last one makes it a step."""
        if not continued:
            close_all((self._joining or {}).get('descriptors', {}).values())
            self._joining = {**message, 'payload': None, 'descriptors': {}, 'lines': 0}
        joining: Dict[str, Any] = self._joining or {}
        twice = [name for name in descriptors if name in joining['descriptors']]
        joining['lines'] += 1
        if twice or joining['lines'] > GRANT_LINES_MAX:
            self._joining = None
            close_all([*joining['descriptors'].values(), *descriptors.values()])
            self.fault('WRONG_DESCRIPTORS' if twice else 'INVALID_MESSAGE', f'the GRANT of the {message["resource"]}')
            return
        joining['descriptors'].update(descriptors)
        if message['payload'] is not None:
            before, new = joining['payload'] or {}, message['payload']
            joining['payload'] = {**before, **new}
            if isinstance(before.get('connections'), list) and isinstance(new.get('connections'), list):
                joining['payload']['connections'] = before['connections'] + new['connections']
        if not message['more']:
            self._joining = None
            self._enqueue(joining)

    def _enqueue(self, step: Dict[str, Any]) -> None:
        if len(self._waiting) >= STEPS_WAITING_MAX:
            close_all(step.get('descriptors', {}).values())
            self.fault('UNEXPECTED_MESSAGE', f'{len(self._waiting)} steps wait already')
            return
        step = {**step, 'socket': self._socket}
        # It comes before its turn only when whoever flew is dead: it waits for no other resource's step.
        urgent = step['type'] == 'GRANT' and step['resource'] == 'rotors'
        if urgent and not any(other['resource'] == 'rotors' for other in [*self._running, *self._waiting]):
            self._carry_out(step)
            return
        self._waiting.append(step)
        self._next()

    def _next(self) -> None:
        while not self._running and self._waiting:
            self._carry_out(self._waiting.popleft())

    def _carry_out(self, step: Dict[str, Any]) -> None:
        self._running.append(step)
        try:
            (self._release if step['type'] == 'RELEASE' else self._grant)(step)
        except Exception as error:
            self._finish(step, error)

    def _runs(self, step: Dict[str, Any]) -> bool:
        return any(other is step for other in self._running)

    def _finish(self, step: Dict[str, Any], error: Optional[Exception] = None) -> None:
        if not self._runs(step):
            return
        self._running = [other for other in self._running if other is not step]
        if error is not None:
            if step['type'] == 'GRANT' and not step.get('renewed'):
                self._drop(step['resource'])
            code = getattr(error, 'code', 'APP_ERROR')
            self.fault(str(code), f'{step["type"]} of the {step["resource"]}: {error}')
        self._next()

    def _answer(self, step: Dict[str, Any], done: Callable[..., None]) -> Answer:
        def current(payload: Optional[Dict[str, Any]] = None, descriptors: Descriptors = ()) -> None:
            if self._runs(step):
                done(payload or {}, descriptors)
        return Answer(current, lambda error: self._finish(step, error))

    def _release(self, step: Dict[str, Any]) -> None:
        resource, epoch, sock = step['resource'], step['epoch'], step['socket']
        if resource not in self._held:
            raise HolderError('NOT_OWNER', f'the {resource} cannot be released')
        holder = self._holders[resource]
        if resource == 'rotors':
            self._beat(False)

        def done(payload: Dict[str, Any], descriptors: Descriptors) -> None:
            lines = split(payload, descriptors)
            outcome: List[bool] = []  # the first word on it counts

            def settled(delivered: bool) -> None:
                if outcome or not self._runs(step):
                    return
                outcome.append(delivered)
                if delivered:
                    del self._held[resource]
                    if resource == 'rotors':
                        self._interval_ms = SNAP_INTERVAL_MS
                    holder.drop()
                    self._finish(step)
                else:
                    self._log('warn', f'nobody heard that the {resource} were let go: going on with them')
                    self._resume(step, payload, descriptors)

            for at, (part, fds) in enumerate(lines):
                line = {'type': 'RELEASED', 'epoch': epoch, 'resource': resource, 'payload': part}
                if at < len(lines) - 1:
                    line['more'] = True
                if not sock.send(line, fds, settled if at == len(lines) - 1 else lambda delivered: None):
                    settled(False)
                    return

        holder.release(step['deadlineMs'], self._answer(step, done))

    def _resume(self, step: Dict[str, Any], payload: Dict[str, Any], descriptors: Descriptors) -> None:
        resource = step['resource']
        holder = self._holders[resource]
        own = holder.descriptor()
        fds = dict(descriptors) if own is None else {resource: own}
        again = {**step, 'type': 'GRANT'}  # if it fails it is dropped
        self._running = [again if other is step else other for other in self._running]

        def done(*_: Any) -> None:
            if resource == 'rotors':
                self._beat(True)
            self._finish(again)

        try:
            grant = Grant('release', payload, fds, self._held[resource], self._signing if resource == 'rotors' else None)
            holder.grant(grant, self._answer(again, done))
        except Exception as error:
            self._finish(again, error)

    def _grant(self, step: Dict[str, Any]) -> None:
        resource, epoch, sock = step['resource'], step['epoch'], step['socket']
        holder = self._holders.get(resource)
        if holder is None:
            close_all(step['descriptors'].values())
            raise HolderError('NO_HOLDER', f'this app has no use for the {resource}')
        step['renewed'] = resource in self._held
        version = (step['payload'] or {}).get('stateVersion')
        # Refused while its giver can take it back; from a dead one's heartbeat the holder makes what it can.
        if (resource == 'rotors' and not step['renewed'] and step['from'] != 'snap'
                and version is not None and version not in self._identity['reads']):
            close_all(step['descriptors'].values())
            raise HolderError('INCOMPATIBLE_STATE', f'the state is of version {version}, not of {self._identity["reads"]}')
        if resource == 'rotors':
            self._candidate = False
            self._signing = step.get('signing')
            self._end_shadow()
        self._held[resource] = epoch

        def done(*_: Any) -> None:
            if self._socket is sock:  # to another agent, HELLO has said it
                self._send({'type': 'GRANTED', 'epoch': epoch, 'resource': resource})
            if resource == 'rotors':
                self._beat(True)
            self._finish(step)

        answer = self._answer(step, done)
        grant = Grant(step['from'], step['payload'], step['descriptors'], epoch, step.get('signing'))
        (holder.renew if step['renewed'] else holder.grant)(grant, answer)

    def _drop(self, resource: str) -> None:
        self._held.pop(resource, None)
        if resource == 'rotors':
            self._beat(False)
            self._interval_ms = SNAP_INTERVAL_MS
        if resource in self._holders:
            self._holders[resource].drop()
        for step in self._running:
            if step['resource'] == resource:
                self._finish(step, HolderError('DROPPED', 'it was taken back before this was done'))

    # -------------------------------------------------------------- heartbeat

    def _beat(self, on: bool) -> None:
        self._loop.cancel(self._heartbeat)
        self._heartbeat = None
        if on:
            self._snap()

    def _snap(self) -> None:
        if self._interval_ms < SNAP_INTERVAL_MS and not self._holders['rotors'].mirroring():
            self._interval_ms = SNAP_INTERVAL_MS
        self._heartbeat = self._loop.later(self._interval_ms / 1000, self._snap)
        # One that waits would only be older when it is read.
        if self._socket is None or self._socket.queued_bytes > 0:
            return
        at_us = now_us()
        payload = self._snapshot()
        try:
            if payload is not None:
                beat = {'type': 'SNAP', 'epoch': self.epoch, 'payload': payload, 'atUs': at_us}
                self._send({**beat, **self._health()})
        except (ValueError, ProtocolError) as error:  # no JSON (a NaN), or too long for a line: no heartbeat, no crash
            self.fault('BAD_SNAPSHOT', str(error))
