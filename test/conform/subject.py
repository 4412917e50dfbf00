"""A program for the conformance runner, on the Python client: docs/handover-conformance.md says what it does."""

import base64
import os
import socket
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'handover', 'python'))
from midair_handover import (  # noqa: E402
    Diverged, Grant, Holder, HolderError, Loop, Mirror, MirrorSource, Session, ShadowJudge, close_all, now_us, same_file)

RELEASE = os.environ['MIDAIR_RELEASE']


def take_one(grant: Grant, name: str) -> int:
    """The one descriptor of a grant; any other that came is closed."""
    fd = grant.descriptors.pop(name, None)
    close_all(grant.descriptors.values())
    if fd is None:
        raise HolderError('NO_DESCRIPTOR', f'the grant has no descriptor "{name}"')
    return fd


def encoded(data) -> str:
    return base64.b64encode(bytes(data)).decode()


class Rotors(Holder):
    """Answers each input line `i N` with `c EPOCH SEQ N`."""

    def __init__(self, loop):
        self.loop = loop
        self.fd = None
        self.owns = False
        self.epoch = self.seq = self.n = self.last_write_us = 0
        self.partial = b''
        self.answer = None  # of a grant, until the first command
        self.source = None

    def snapshot(self):
        return {'lastWriteUs': self.last_write_us, 'link': {'seq': self.seq}, 'partial': encoded(self.partial),
                'state': {'n': self.n}, 'stateVersion': 1}

    def grant(self, grant, answer):
        fd = take_one(grant, 'rotors')
        if fd != self.fd:
            self.drop()
        self.fd, self.epoch, self.answer, self.owns = fd, grant.epoch, answer, True
        os.set_blocking(fd, False)
        if grant.payload is not None:
            self.seq, self.n = grant.payload['link']['seq'], grant.payload['state']['n']
            self.last_write_us = grant.payload['lastWriteUs']
            self.partial = base64.b64decode(grant.payload['partial'])
        self.loop.watch(fd, self.read)

    def renew(self, grant, answer):
        fd = take_one(grant, 'rotors')
        if same_file(fd, self.fd):
            os.close(fd)
        else:
            self.loop.unwatch(self.fd)
            os.close(self.fd)
            self.fd = fd
            os.set_blocking(fd, False)
            self.loop.watch(fd, self.read)
        self.epoch, self.answer = grant.epoch, answer

    def release(self, deadline_ms, answer):
        # Every command was written within the turn that read its input: between two turns nothing is half done.
        self.loop.unwatch(self.fd)
        self.owns = False
        if self.source is not None:
            self.source.close()
        self.source = None
        answer.done(self.snapshot())

    def drop(self):
        self.owns = False
        if self.fd is not None:
            self.loop.unwatch(self.fd)
            os.close(self.fd)
        if self.source is not None:
            self.source.close()
        self.fd = self.source = None
        self.partial = b''

    def descriptor(self):
        return self.fd

    def mirror(self, fd):
        if self.source is not None:
            self.source.close()
        self.source = MirrorSource(fd)

    def mirroring(self):
        return self.source is not None and self.source.open

    def read(self, events):
        try:
            chunk = os.read(self.fd, 4096)
        except BlockingIOError:
            return
        if self.source is not None:
            self.source.record(False, chunk)
        *lines, self.partial = (self.partial + chunk).split(b'\n')
        for line in lines:
            self.command(int(line.split()[1]))

    def command(self, n):
        self.seq, self.n = self.seq + 1, n
        command = f'c {self.epoch} {self.seq} {n}\n'.encode()
        os.write(self.fd, command)
        self.last_write_us = now_us()
        if self.source is not None:
            self.source.record(True, command)
        if self.answer is not None:
            answer, self.answer = self.answer, None
            answer.done()


class Camera(Holder):
    """Counts frames: 4 bytes LE length, and that many bytes."""

    def __init__(self, loop):
        self.loop = loop
        self.fd = None
        self.bytes = bytearray()
        self.frames = 0

    def grant(self, grant, answer):
        fd = take_one(grant, 'camera')
        if fd != self.fd:
            self.drop()
        self.fd = fd
        os.set_blocking(fd, False)
        payload = grant.payload or {'leftover': '', 'frames': 0}
        self.bytes, self.frames = bytearray(base64.b64decode(payload['leftover'])), payload['frames']
        self.loop.watch(fd, self.read)
        answer.done()

    def release(self, deadline_ms, answer):
        self.loop.unwatch(self.fd)
        answer.done({'leftover': encoded(self.bytes), 'frames': self.frames})

    def drop(self):
        if self.fd is not None:
            self.loop.unwatch(self.fd)
            os.close(self.fd)
        self.fd = None

    def descriptor(self):
        return self.fd

    def read(self, events):
        try:
            chunk = os.read(self.fd, 65536)
        except BlockingIOError:
            return
        if not chunk:
            self.loop.unwatch(self.fd)
            return
        self.bytes += chunk
        while len(self.bytes) >= 4:
            end = 4 + struct.unpack_from('<I', self.bytes)[0]
            if len(self.bytes) < end:
                return
            del self.bytes[:end]
            self.frames += 1


class Connections(Holder):
    """Answers each line `X` with `e X`."""

    def __init__(self, loop):
        self.loop = loop
        self.open = {}  # descriptor: the beginning of a line
        self.released = False

    def add(self, fd, head=b''):
        os.set_blocking(fd, False)
        self.open[fd] = head
        self.loop.watch(fd, lambda events: self.read(fd))

    def grant(self, grant, answer):
        known = {fd for fd in grant.descriptors.values() if fd in self.open}
        for entry in (grant.payload or {}).get('connections', []):
            fd = grant.descriptors.pop(entry['fd'])
            known.discard(fd)
            self.add(fd, base64.b64decode(entry['head']))
        close_all(grant.descriptors.values())
        answer.done()

    def release(self, deadline_ms, answer):
        for fd in self.open:
            self.loop.unwatch(fd)
        named = [(f'c{at}', fd) for at, fd in enumerate(self.open)]
        entries = [{'fd': name, 'protocol': 'line', 'head': encoded(self.open[fd]), 'meta': {}} for name, fd in named]
        answer.done({'connections': entries, 'closed': 0}, named)

    def drop(self):
        for fd in self.open:
            self.loop.unwatch(fd)
            os.close(fd)
        self.open = {}

    def read(self, fd):
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return
        except OSError:
            chunk = b''
        if not chunk:
            self.loop.unwatch(fd)
            os.close(fd)
            del self.open[fd]
            return
        *lines, self.open[fd] = (self.open[fd] + chunk).split(b'\n')
        for line in lines:
            os.write(fd, b'e ' + line + b'\n')


class Listener(Holder):
    """Greets who connects, and makes it one of the connections."""

    def __init__(self, loop, connections):
        self.loop, self.connections = loop, connections
        self.fd = None

    def grant(self, grant, answer):
        fd = take_one(grant, 'listener')
        if fd != self.fd:
            self.drop()
        self.fd = fd
        os.set_blocking(fd, False)
        self.loop.watch(fd, self.accept)
        answer.done()

    def release(self, deadline_ms, answer):
        self.loop.unwatch(self.fd)
        answer.done({})

    def drop(self):
        if self.fd is not None:
            self.loop.unwatch(self.fd)
            os.close(self.fd)
        self.fd = None

    def descriptor(self):
        return self.fd

    def accept(self, events):
        listener = socket.socket(fileno=os.dup(self.fd))
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        finally:
            listener.close()
        fd = connection.detach()
        os.write(fd, f'hello {RELEASE}\n'.encode())
        self.connections.add(fd)


def warm_up(mirror: Mirror, bounds, answer) -> None:
    """One cycle a command of the prior's: 0 from it if the input that it answers was mirrored, 1 if not."""
    if not mirror.available or bounds is None:
        answer.done(0, 0.0)
        return
    partial = {False: b'', True: b''}
    seen = []
    judge = ShadowJudge(bounds)

    def on_record(outgoing, data):
        *lines, partial[outgoing] = (partial[outgoing] + data).split(b'\n')
        for words in map(bytes.split, lines):
            if not outgoing:
                seen.extend(int(n) for n in words[1:])
            elif seen and int(words[3]) >= seen[0]:
                if judge.add(0.0 if int(words[3]) in seen else 1.0):
                    answer.done(judge.cycles, judge.divergence)

    def judged(outgoing, data):
        try:
            on_record(outgoing, data)
        except Diverged as error:
            answer.fail(error)

    mirror.on_record = judged


def follow(mirror: Mirror) -> None:
    """What the successor answers is in the rotors' payload when they come back: nothing is to be kept up to date here."""


def holders(loop):
    connections = Connections(loop)
    return {'camera': Camera(loop), 'listener': Listener(loop, connections), 'connections': connections,
            'rotors': Rotors(loop)}


def main(make_session=Session, make_holders=holders):
    loop = Loop()
    held = make_holders(loop)
    session = make_session(
        loop, app=os.environ['MIDAIR_APP'], release=RELEASE, socket_path=os.environ['MIDAIR_SOCKET'], reads=[1],
        writes=1, holders=held, warm_up=warm_up, follow=follow, snapshot=held['rotors'].snapshot,
        health=lambda: {'cycles': held['rotors'].seq},
        log=lambda level, text: print(level, text, file=sys.stderr, flush=True))
    session.connect()
    loop.run()


if __name__ == '__main__':
    main()
