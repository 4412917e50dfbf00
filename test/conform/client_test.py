"""Parts of the Python client by themselves; and, with `parse`, its parser as a filter: a code for each line."""

import array
import base64
import gc
import json
import math
import os
import resource
import socket
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'handover', 'python'))
from midair_handover import (  # noqa: E402
    LINE_BYTES_MAX, REFUSALS_PER_S_MAX, Diverged, Holder, LineSocket, Loop, Mirror, MirrorSource, ProtocolError, Session,
    ShadowJudge, close_all, parse_agent_message, split)


def open_descriptors():
    return len(os.listdir('/proc/self/fd'))


class Wire(unittest.TestCase):
    def setUp(self):
        self.loop = Loop()
        # Other tests' loops, which Python frees when it likes: also in the middle of this one.
        gc.collect()
        self.before = open_descriptors()
        ours, self.peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.heard, self.ended = [], []
        self.line = LineSocket(self.loop, ours, lambda message, fds: self.heard.append((message, fds)),
                               self.ended.append)

    def tearDown(self):
        self.line.close()
        self.peer.close()
        self.assertEqual(open_descriptors(), self.before)

    def turn(self):
        self.loop.later(0.01, lambda: None)
        self.loop.turn()

    def send(self, data, fds=()):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else []
        self.peer.sendmsg([data], rights)

    def test_what_waits_goes_later_in_order_with_its_descriptors(self):
        self.peer.setblocking(False)
        settled, count = [], 60
        read, write = os.pipe()
        for at in range(count):
            self.assertTrue(self.line.send({'type': 'SNAP', 'epoch': at, 'payload': {'x': 'x' * 20_000}},
                                           [('w', write)], lambda done, at=at: settled.append((at, done))))
        os.close(write)
        self.assertLess(len(settled), count)
        self.assertGreater(self.line.queued_bytes, 0)
        data, fds = b'', []
        while data.count(b'\n') < count:
            self.turn()
            try:
                chunk, control, _, _ = self.peer.recvmsg(65536, 4096)
            except BlockingIOError:
                continue
            data += chunk
            for _, _, raw in control:
                fds += array.array('i', raw)
        epochs = [line.split(b'"epoch":')[1].split(b',')[0] for line in data.splitlines()]
        self.assertEqual(epochs, [str(at).encode() for at in range(count)])
        self.assertEqual(settled, [(at, True) for at in range(count)])
        self.assertEqual(len(fds), count)
        for fd in fds:
            os.close(fd)
        self.assertEqual(os.read(read, 1), b'')  # no copy of the writing end is left
        os.close(read)

    def test_what_waits_when_the_agent_goes_was_not_delivered(self):
        settled = []
        while self.line.queued_bytes == 0:
            self.line.send({'type': 'SNAP', 'epoch': 0, 'payload': {'x': 'x' * 60_000}}, [('r', 0)], settled.append)
        sent = len(settled)
        self.peer.close()
        for _ in range(3):
            self.turn()
        self.assertEqual(settled[sent:], [False])
        self.assertEqual(len(self.ended), 1)
        self.assertFalse(self.line.send({'type': 'RETIRE', 'epoch': 0}))

    def test_descriptors_of_a_line_behind_others_in_one_read(self):
        read, write = os.pipe()
        self.send(b'{"type":"PREPARE","epoch":1}\n{"type":"PREP')
        self.send(b'ARE","epoch":2}\n')
        self.send(b'{"type":"SHADOW","epoch":3,"role":"shadow","fds":["mirror"]}\n', [read])
        self.send(b'{"type":"PREPARE","epoch":4}\n')
        for _ in range(4):
            self.turn()
        self.assertEqual([message['epoch'] for message, _ in self.heard], [1, 2, 3, 4])
        self.assertEqual([list(fds) for _, fds in self.heard], [[], [], ['mirror'], []])
        self.assertFalse(os.get_inheritable(self.heard[2][1]['mirror']))
        for fd in (read, write, self.heard[2][1]['mirror']):
            os.close(fd)

    def test_control_data_cut_off_ends_it_and_closes_what_came(self):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = {int(name) for name in os.listdir('/proc/self/fd')}
        free = [fd for fd in range(len(taken) + 4) if fd not in taken]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[3], limits[1]))  # room for three
        try:
            self.send(b'{"type":"PREPARE","epoch":1}\n', [0] * 8)
            self.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.assertEqual([error.code for error in self.ended], ['TRUNCATED_CONTROL_DATA'])

    def test_a_line_as_long_as_may_be_in_single_pieces(self):
        head, tail = b'{"type":"GRANT","epoch":1,"resource":"camera","from":"snap","payload":{"x":"', b'"}}'
        text = head + b'x' * (LINE_BYTES_MAX - len(head) - len(tail)) + tail + b'\n'
        for at in range(0, len(text), 5_000):
            self.send(text[at:at + 5_000])
            self.turn()
        self.assertEqual(len(self.heard), 1)
        with self.assertRaises(ProtocolError):
            self.line.send({'type': 'SNAP', 'epoch': 1, 'payload': {'x': 'x' * LINE_BYTES_MAX}})


class Parts(unittest.TestCase):
    def test_timers_in_order_and_canceled_ones_not(self):
        loop, told = Loop(), []
        loop.later(0.02, lambda: (told.append('b'), loop.stop()))
        loop.later(0.01, lambda: told.append('a'))
        loop.cancel(loop.later(0.005, lambda: told.append('never')))
        loop.run()
        self.assertEqual(told, ['a', 'b'])

    def test_one_unwatched_in_the_same_turn_is_not_called(self):
        loop, told = Loop(), []
        pairs = [socket.socketpair() for _ in range(2)]
        fds = [left.fileno() for left, _ in pairs]

        def called(mine, other):
            told.append(mine)
            loop.unwatch(other)

        loop.watch(fds[0], lambda events: called(0, fds[1]))
        loop.watch(fds[1], lambda events: called(1, fds[0]))
        for _, right in pairs:
            right.send(b'x')
        loop.turn()
        self.assertEqual(len(told), 1)
        for pair in pairs:
            for end in pair:
                end.close()

    def test_payloads_in_lines(self):
        connections = [{'fd': f'c{at}', 'head': 'x' * (100_000 if at < 4 else 10)} for at in range(300)]
        lines = split({'connections': connections, 'closed': 3}, [(f'c{at}', at) for at in range(300)])
        self.assertEqual(len(lines), 3)
        self.assertEqual([entry for payload, _ in lines for entry in payload['connections']], connections)
        self.assertEqual([name for _, fds in lines for name, _ in fds], [f'c{at}' for at in range(300)])
        self.assertEqual([payload.get('closed') for payload, _ in lines], [None, None, 3])
        with self.assertRaises(ProtocolError):
            split({'x': 'x' * LINE_BYTES_MAX}, [])

    def test_mirror_whole_records_or_none_and_never_waits(self):
        loop, seen = Loop(), []
        left, right = socket.socketpair()
        source, mirror = MirrorSource(left.detach()), Mirror(loop, right.detach())
        mirror.on_record = lambda outgoing, data: seen.append((outgoing, data))
        for at in range(5_000):
            source.record(at % 2 == 1, str(at).encode() * 50)
        self.assertGreater(source.dropped, 0)
        source.record(False, b'x' * (64 * 1024 + 1))
        while len(seen) < 5_000 - source.dropped + 1:
            loop.turn()
        self.assertEqual(seen, [(at % 2 == 1, str(at).encode() * 50) for at in range(len(seen))])
        source.close()
        loop.turn()
        mirror.close()


class Judge(unittest.TestCase):
    BOUNDS = {'cyclesMin': 10, 'divergenceMax': 0.1}

    def judged(self, divergence_of):
        judge = ShadowJudge(self.BOUNDS)
        for cycle in range(1, 1_000):
            if judge.add(divergence_of(cycle)):
                return cycle, judge
        self.fail('it neither settled nor gave up')

    def test_ready_after_so_many_in_a_row(self):
        for beyond in (0.11, math.inf, math.nan):
            cycle, judge = self.judged(lambda at: beyond if at == 9 else 0.1)
            self.assertEqual((cycle, judge.cycles, judge.divergence), (19, 10, 0.1))

    def test_diverged_says_by_how_much_and_when(self):
        with self.assertRaises(Diverged) as raised:
            self.judged(lambda at: 0.9 if at < 10 else 0.5 if at == 35 else 0.2 if at % 7 == 0 else 0)
        self.assertRegex(str(raised.exception), r"^its output was up to 0\.5 from the prior's, at cycle 35, \d+ ms into")


class Steps(unittest.TestCase):
    """One session under an agent that is this test."""

    class Rotors(Holder):
        def __init__(self):
            self.grants, self.dropped, self.release_now = [], 0, None

        def grant(self, grant, answer):
            close_all(grant.descriptors.values())
            self.grants.append(grant)
            answer.done()

        def release(self, deadline_ms, answer):
            self.release_now = answer

        def drop(self):
            self.dropped += 1

    class Slow(Holder):
        """Answers when the test says so."""

        def __init__(self):
            self.answers = []

        def grant(self, grant, answer):
            close_all(grant.descriptors.values())
            self.answers.append(answer)

        def drop(self):
            pass

    def setUp(self):
        self.loop = Loop()
        self.directory = tempfile.TemporaryDirectory()
        self.connections, self.camera = self.Slow(), self.Slow()
        self.mirrors = []
        self.path = os.path.join(self.directory.name, 's')
        self.rotors = self.Rotors()
        self.listen()
        self.session = Session(self.loop, app='a', release='r', socket_path=self.path, reads=[1], writes=1,
                               holders={'rotors': self.rotors, 'connections': self.connections, 'camera': self.camera},
                               warm_up=lambda mirror, bounds, answer: self.mirrors.append(mirror))
        self.session.connect()
        self.peer, _ = self.listener.accept()

    def listen(self):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen()

    def tearDown(self):
        self.session.close()
        self.peer.close()
        self.listener.close()
        self.directory.cleanup()

    def tell(self, **message):
        self.peer.send(json.dumps(message).encode() + b'\n')
        self.loop.turn()

    def test_signing_comes_with_the_grant_also_to_one_whose_release_nobody_heard(self):
        signing = {'key': base64.b64encode(bytes(32)).decode(), 'linkId': 3, 'lastTimestamp': 12}
        self.tell(type='GRANT', epoch=1, resource='rotors', **{'from': 'start'}, payload=None, signing=signing)
        self.assertEqual(self.rotors.grants[0].signing, signing)
        self.tell(type='RELEASE', epoch=2, resource='rotors', deadlineMs=50)
        self.peer.close()
        self.listener.close()
        self.loop.turn()
        self.rotors.release_now.done({'n': 1})
        self.assertEqual([grant.origin for grant in self.rotors.grants], ['start', 'release'])
        self.assertEqual((self.rotors.grants[1].signing, self.rotors.grants[1].epoch), (signing, 1))
        self.assertTrue(self.session.owns('rotors'))

    def test_a_state_that_it_does_not_read_is_refused_but_from_the_dead(self):
        grant = {'type': 'GRANT', 'resource': 'rotors', 'payload': {'stateVersion': 2}}
        self.tell(**grant, epoch=1, **{'from': 'release'})
        self.assertEqual(self.rotors.grants, [])
        self.assertFalse(self.session.owns('rotors'))
        self.assertIn(b'"INCOMPATIBLE_STATE"', self.peer.recv(65536))
        self.tell(**grant, epoch=2, **{'from': 'snap'})
        self.assertEqual(len(self.rotors.grants), 1)

    def test_of_a_flood_so_many_a_second_are_answered(self):
        self.tell(type='GRANT', epoch=3, resource='rotors', **{'from': 'start'}, payload=None)
        self.peer.recv(65536)
        for _ in range(500):
            self.tell(type='DROP', epoch=2, resource='rotors')
        self.assertEqual(self.rotors.dropped, 0)
        answers = self.peer.recv(1 << 20).count(b'"STALE_EPOCH"')
        # Two, if the second ends meanwhile.
        self.assertIn(answers, (REFUSALS_PER_S_MAX, 2 * REFUSALS_PER_S_MAX))

    def shadowed(self, payload):
        left, right = socket.socketpair()
        message = {'type': 'SHADOW', 'epoch': 1, 'role': 'shadow', 'payload': payload, 'fds': ['mirror']}
        self.tell(type='OFFER', epoch=1, role='candidate')
        socket.send_fds(self.peer, [json.dumps(message).encode() + b'\n'], [right.fileno()])
        right.close()
        self.loop.turn()
        left.close()
        return [mirror.payload for mirror in self.mirrors]

    def test_a_shadow_goes_on_from_the_state_of_its_prior(self):
        payload = {'state': {'learned': 1}, 'stateVersion': 1}
        self.assertEqual(self.shadowed(payload), [payload])

    def test_but_not_from_one_that_it_does_not_read(self):
        self.assertEqual(self.shadowed({'state': {'learned': 1}, 'stateVersion': 2}), [None])

    def said(self):
        return [(line['type'], line.get('resource')) for line in map(json.loads, self.peer.recv(65536).splitlines())]

    def test_a_grant_of_the_rotors_waits_for_no_other_resource(self):
        grant = {'type': 'GRANT', 'from': 'snap', 'payload': None}
        self.tell(**grant, epoch=1, resource='connections')
        self.tell(**grant, epoch=2, resource='rotors')
        self.assertEqual(self.said(), [('HELLO', None), ('GRANTED', 'rotors')])
        # What comes after it waits for the first as ever.
        self.tell(**grant, epoch=3, resource='camera')
        self.assertEqual(self.camera.answers, [])
        self.connections.answers[0].done()
        self.camera.answers[0].done()
        self.assertEqual(self.said(), [('GRANTED', 'connections'), ('GRANTED', 'camera')])

    def test_but_steps_of_the_rotors_keep_their_order(self):
        grant = {'type': 'GRANT', 'from': 'snap', 'payload': None, 'resource': 'rotors'}
        self.tell(**grant, epoch=1)
        self.tell(type='RELEASE', epoch=2, resource='rotors', deadlineMs=50)
        self.tell(**grant, epoch=3)
        self.assertEqual(len(self.rotors.grants), 1)
        self.rotors.release_now.done({})
        self.loop.turn()
        self.assertEqual([given.epoch for given in self.rotors.grants], [1, 3])
        self.assertTrue(self.session.owns('rotors'))


def code_of(line):
    try:
        parse_agent_message(line)
        return 'ok'
    except ProtocolError as error:
        return error.code


if __name__ == '__main__':
    if sys.argv[1:] == ['parse']:
        for text in sys.stdin.buffer.read().split(b'\n')[:-1]:
            print(code_of(text))
    else:
        unittest.main()
