/** What pilots ask for: who follows it, also while the connections and the rotors are with different versions. */
import { EventEmitter } from 'node:events';
import { expect, it } from 'vitest';
import type { WebSocket } from 'ws';
import type { Request } from '#apps/drone/flight/control.ts';
import { Pilot, type PilotMeta } from '#apps/drone/panel/pilot.ts';

class Browser extends EventEmitter {
  readonly got: { type: string; text?: string; request?: Request }[] = [];
  send(text: string): void {
    this.got.push(JSON.parse(text));
  }
  say(message: unknown): void {
    this.emit('message', Buffer.from(JSON.stringify(message)), false);
  }
}

/** A version of the app, as far as pilots see it. */
class Version {
  flies = true;
  readonly followed: Request[] = [];
  readonly sockets: [WebSocket, PilotMeta][] = [];
  refusal: string | undefined;
  readonly pilot = new Pilot({
    flies: () => this.flies,
    ask: (request) => {
      if (this.refusal === undefined) this.followed.push(request);
      return this.refusal;
    },
  });
  adopt(browser: Browser, meta: PilotMeta = {}): PilotMeta {
    this.sockets.push([browser as unknown as WebSocket, meta]);
    this.pilot.hear(browser as unknown as WebSocket, meta);
    return meta;
  }
}
const GOTO = { type: 'goto', northM: 10, eastM: 0, upM: 5 };

it('who flies follows at once, and says what it follows', () => {
  const v1 = new Version();
  const browser = new Browser();
  v1.adopt(browser);
  browser.say(GOTO);
  expect(v1.followed).toEqual([{ ...GOTO, speedMS: 1 }]);
  expect(browser.got).toEqual([{ type: 'asked', request: { ...GOTO, speedMS: 1 } }]);
});

it('what it does not follow it says why, and the flight hears nothing of nonsense', () => {
  const v1 = new Version();
  const browser = new Browser();
  v1.adopt(browser);
  browser.emit('message', Buffer.from('{'), false);
  browser.emit('message', Buffer.from(JSON.stringify(GOTO)), true);
  browser.say({ type: 'dance' });
  browser.say({ ...GOTO, northM: 1e9 });
  browser.say({ ...GOTO, upM: 'high' });
  browser.say({ ...GOTO, more: 1 });
  browser.say({ type: 'circle', radiusM: 3, speedMS: 99 });
  expect(v1.followed).toEqual([]);
  v1.refusal = 'it does not fly (stand)';
  browser.say({ type: 'land' });
  expect(browser.got.map(({ type }) => type)).toEqual(Array.from({ length: 7 }, () => 'refused'));
  expect(browser.got.map(({ text }) => text)).toEqual([
    'not JSON',
    expect.stringContaining('"dance"'),
    'northM is above 100',
    'upM must be a number',
    expect.stringContaining('"more"'),
    'speedMS is above 3',
    'it does not fly (stand)',
  ]);
});

it('in the middle of a handover nothing is lost: it goes on with its connection, and the newest counts', () => {
  const [v1, v2] = [new Version(), new Version()];
  v1.flies = true;
  v2.flies = false;
  const [one, two] = [new Browser(), new Browser()];
  const metas = [v2.adopt(one), v2.adopt(two)];
  one.say({ type: 'hover' });
  two.say(GOTO);
  v2.pilot.flush(v2.sockets);
  expect(v2.followed).toEqual([]);

  // It fails before it gets the rotors: the connections go back, by JSON.
  const [back, again] = [new Browser(), new Browser()];
  v1.adopt(back, JSON.parse(JSON.stringify(metas[0])));
  v1.adopt(again, JSON.parse(JSON.stringify(metas[1])));
  v1.pilot.flush(v1.sockets);
  v1.pilot.flush(v1.sockets);
  expect(v1.followed).toEqual([{ ...GOTO, speedMS: 1 }]);
  expect(again.got.map(({ type }) => type)).toEqual(['asked']);
  expect(back.got).toEqual([]);
});
