import { expect, test } from 'vitest';
import { landCommand } from '#agent/land.ts';
import { LinkSigning } from '#agent/signing.ts';
import { BOUNDS } from '#handover/bounds.ts';
import {
  type Frame,
  MAV,
  Parser,
  type Refusal,
  SignedLink,
  systemTicks,
  Writer,
} from '#handover/mavlink/index.ts';

const KEY = new Uint8Array(32).fill(3);
const payloadOf = (lastTimestamp: unknown) => ({ state: {}, signing: { linkId: 1, lastTimestamp } }) as never;

/** A board that hears the app first. */
const board = () => {
  const refused: Refusal[] = [];
  const signing = new SignedLink({ key: KEY, linkId: 0, lastTimestamp: 0 });
  const parser = new Parser({ signing, onRefused: (refusal) => refused.push(refusal) });
  return { refused, hear: (bytes: Uint8Array): Frame[] => parser.read(bytes), signing };
};

test('the agent grants the key, its one link id, and the highest time that it heard', () => {
  const link = new LinkSigning(KEY);
  const key = Buffer.from(KEY).toString('base64');
  expect(link.signing).toEqual({ key, linkId: 1, lastTimestamp: 0 });
  link.heard(payloadOf(500));
  link.heard(payloadOf(400));
  // What is no time, and an app that does not sign, change nothing.
  for (const wrong of [-1, 1.5, 2 ** 48, '900', null]) link.heard(payloadOf(wrong));
  link.heard({ state: {} });
  expect(link.signing.lastTimestamp).toBe(500);
  // No log and no report shows it by accident.
  expect(JSON.stringify(link)).toBe('{}');
});

test('land: a board that is not signed hears it plain, one that is hears it signed, and it alone', () => {
  const [plain] = new Parser().read(landCommand());
  expect(plain).toMatchObject({ name: 'COMMAND_LONG', systemId: 1, componentId: 191 });
  expect(plain?.fields).toMatchObject({ command: MAV.CMD_NAV_LAND, target_component: 1 });
  const { hear, refused } = board();
  expect(hear(landCommand())).toEqual([]);
  const link = new LinkSigning(KEY);
  expect(hear(landCommand(link.afterLoss()))).toMatchObject([{ name: 'COMMAND_LONG' }]);
  expect(refused).toEqual(['unsigned']);
});

test('land is later than all that the last app signed after its last heartbeat, by whatever clock', () => {
  const { hear, refused, signing } = board();
  const link = new LinkSigning(KEY);
  // The app's clock was ahead of the agent's: as if that had been put back by an hour.
  const aheadTicks = systemTicks() + 360_000_000;
  link.heard(payloadOf(aheadTicks));
  const unheardTicks = BOUNDS.signedUnheardMsMax * 100;
  const now = (): number => aheadTicks + unheardTicks;
  const app = new Writer({
    systemId: 1,
    componentId: MAV.COMP_ID_ONBOARD_COMPUTER,
    signing: new SignedLink({ ...link.signing, now }),
  });
  expect(hear(app.encode('EXTENDED_SYS_STATE', { vtol_state: 0, landed_state: 0 }))).toHaveLength(1);
  expect(hear(landCommand(link.signing))).toEqual([]);
  expect(refused).toEqual(['replayed']);
  expect(hear(landCommand(link.afterLoss()))).toHaveLength(1);
  // The same stream as the apps': the board keeps one.
  expect(signing.streamCount).toBe(1);
});
