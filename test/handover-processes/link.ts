/** One version of an app on the rotor link: answers each numbered record once; told by IPC to take it and let go. */
import { native } from '#handover/native.ts';
import { type RotorsPayload, SerialLink } from '#handover/serial.ts';

/** Record: 4 bytes LE number, 1 byte length of the filler, filler. Answer: number, and the writer's name's code. */
const name = (process.argv[2] ?? '?').charCodeAt(0);
let partial = Buffer.alloc(0);
let last = -1;

const link = new SerialLink({
  onData: (bytes) => {
    partial = Buffer.concat([partial, bytes]);
    while (partial.length >= 5 && partial.length >= 5 + (partial[4] as number)) {
      last = partial.readUInt32LE(0);
      partial = partial.subarray(5 + (partial[4] as number));
      const answer = Buffer.alloc(5);
      answer.writeUInt32LE(last, 0);
      answer[4] = name;
      link.write(answer);
    }
  },
  state: () => ({ link: { seq: last }, partial, state: {}, stateVersion: 1 }),
  resume: (payload) => {
    partial = Buffer.alloc(0);
    last = Number(payload?.link.seq ?? -1);
  },
});

process.on('message', (message: { type: string; payload: RotorsPayload | null; epoch: number }) => {
  const work = async (): Promise<void> => {
    if (message.type === 'grant') {
      await link.grant({
        from: message.payload === null ? 'start' : 'release',
        payload: message.payload,
        descriptors: new Map([['rotors', native.duplicate(3)]]),
        epoch: message.epoch,
      });
      process.send?.({ type: 'granted' });
    } else {
      const { payload } = await link.release(200);
      process.send?.({ type: 'released', payload });
      link.drop();
    }
  };
  work().catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
});
process.send?.({ type: 'ready' });
