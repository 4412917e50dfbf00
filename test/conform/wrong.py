"""Programs that are wrong in one way each, `python3 wrong.py WAY`: the conformance runner must find each."""

import os
import sys

import subject  # beside this file
from midair_handover import LineSocket, ProtocolError, Session, close_all, parse_agent_message
import midair_handover


class WritesOn(subject.Rotors):
    """Goes on with the tty after RELEASED, by a copy that it kept."""

    def release(self, deadline_ms, answer):
        kept = os.dup(self.fd)
        super().release(deadline_ms, answer)
        self.fd = kept
        self.loop.watch(kept, self.read)


class GrantedEarly(subject.Rotors):
    """Says GRANTED before it has written a command."""

    def grant(self, grant, answer):
        super().grant(grant, answer)
        self.answer = None
        answer.done()


class LosesPartial(subject.Rotors):
    """Forgets what it had read of an input."""

    def snapshot(self):
        return {**super().snapshot(), 'partial': ''}


class FliesOnDropped(subject.Rotors):
    """Goes on with the tty after DROP, by a copy that it kept."""

    def drop(self):
        kept = None if self.fd is None or not self.owns else os.dup(self.fd)
        super().drop()
        if kept is not None:
            self.fd = kept
            self.loop.watch(kept, self.read)


class RotorsLast(Session):
    """Refuses the rotors as long as it has not got the camera."""

    def _grant(self, step):
        if step['resource'] == 'rotors' and step['from'] == 'snap' and not self.owns('camera'):
            close_all(step['descriptors'].values())
            raise midair_handover.HolderError('NO_CAMERA', 'blind')
        super()._grant(step)


class DeafInterval(Session):
    """Sends its heartbeat as ever while it is watched."""

    def _shadow(self, message, descriptors):
        message.pop('snapIntervalMs', None)
        super()._shadow(message, descriptors)


class AnyState(Session):
    """Takes a state of any version."""

    def _grant(self, step):
        (step['payload'] or {}).pop('stateVersion', None)
        super()._grant(step)


class KeepsMirror(Session):
    """Follows on while it flies."""

    def _end_shadow(self):
        self._warming = self._begin = self._mirror = None


class AlwaysReady(Session):
    """Is ready whatever the prior does."""

    def _offered(self, epoch, bounds):
        super()._offered(epoch, bounds and {'cyclesMin': 15, 'divergenceMax': 10.0})


class ReadsOn(subject.Camera):
    """Goes on reading frames after RELEASED."""

    def release(self, deadline_ms, answer):
        kept = os.dup(self.fd)
        super().release(deadline_ms, answer)
        self.fd = kept
        self.loop.watch(kept, self.read)


class Stale(Session):
    """Obeys any epoch."""

    def _heard(self, message, descriptors):
        self.epoch = min(self.epoch, message['epoch'] - 1)
        super()._heard(message, descriptors)


class Leaks(Session):
    """Refuses, but keeps the descriptors."""

    def _heard(self, message, descriptors):
        if message['epoch'] <= self.epoch and message['type'] == 'GRANT':
            descriptors = {name: os.dup(fd) and fd for name, fd in descriptors.items()}
        super()._heard(message, descriptors)


class Forgets(Session):
    """Drops everything when the agent is gone."""

    def _lost(self, error):
        for resource in midair_handover.RESOURCES:
            self._drop(resource)
        super()._lost(error)


class BelievesUnheard(Session):
    """Takes a RELEASED that nobody heard for done."""

    def _resume(self, step, payload, descriptors):
        self._held.pop(step['resource'], None)
        self._holders[step['resource']].drop()
        self._finish(step)


class Obeys(Session):
    """Retires and leaves when told, whatever it holds."""

    def _committed(self, role, epoch):
        if role == 'retired':
            self._send({'type': 'RETIRE', 'epoch': epoch})

    def _revoked(self, code, text):
        self.close()
        sys.exit(0)


def skips_bad_lines():
    """Goes on with the next line after one that breaks a rule."""
    def line(self):
        text, self._partial = bytes(self._partial), bytearray()
        received, self._received = self._received, []
        try:
            message = parse_agent_message(text)
        except ProtocolError:
            close_all(received)
            return
        self._on_message(message, dict(zip(message['fds'], received)))
    LineSocket._line = line


def main(way):
    rotors = {'writes-on': WritesOn, 'granted-early': GrantedEarly, 'loses-partial': LosesPartial,
              'flies-on-dropped': FliesOnDropped}
    cameras = {'reads-on': ReadsOn}
    sessions = {'stale': Stale, 'leaks': Leaks, 'forgets': Forgets, 'believes-unheard': BelievesUnheard, 'obeys': Obeys,
                'rotors-last': RotorsLast, 'deaf-interval': DeafInterval, 'any-state': AnyState, 'keeps-mirror': KeepsMirror,
                'always-ready': AlwaysReady}
    if way == 'skips-bad-lines':
        skips_bad_lines()
    elif way == 'no-start':
        sys.exit('this one does not start')
    elif way not in {**rotors, **cameras, **sessions}:
        sys.exit(f'no such way to be wrong: {way}')

    def holders(loop):
        made = subject.holders(loop)
        if way in rotors:
            made['rotors'] = rotors[way](loop)
        if way in cameras:
            made['camera'] = cameras[way](loop)
        return made

    subject.main(sessions.get(way, Session), holders)


main(sys.argv[1])
