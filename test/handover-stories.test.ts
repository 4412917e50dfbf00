/** The machine, told as stories: what happens, and what it asks to be done. Exploration holds for all orders; these show one each. */
import { describe, expect, test } from 'vitest';
import { policyOf } from '#agent/policy.ts';
import { LIMITS } from '#handover/limits.ts';
import { deadlineMs, step } from '#handover/machine.ts';
import { type AppMessage, RESOURCES, type Resource } from '#handover/messages.ts';
import type { Effect, Event, Policy, State } from '#handover/state.ts';

type Words = AppMessage extends infer M ? (M extends AppMessage ? Omit<M, 'epoch' | 'fds'> : never) : never;
type Happening = Event extends infer E ? (E extends Event ? Omit<E, 'atMs'> : never) : never;

/** V1 owns everything and V2 was started; time is the story's own. */
class Story {
  readonly config = { limits: LIMITS, resources: RESOURCES };
  state: State = { phase: 'idle', epoch: 7, owner: 'v1', speaks: { reads: [1], writes: 1 } };
  nowMs = 1_000;
  effects: Effect[] = [];

  constructor(policy: Partial<Policy> = {}) {
    this.happen({ type: 'update', candidate: 'v2', policy: { ...policyOf({}), ...policy } });
  }

  happen(event: Happening): this {
    const [state, effects] = step(this.state, { ...event, atMs: this.nowMs } as Event, this.config);
    this.state = state;
    this.effects = effects;
    return this;
  }
  says(from: string, words: Words, epoch = this.state.epoch): this {
    return this.happen({ type: 'message', from, message: { fds: [], epoch, ...words } as AppMessage });
  }
  /** Time passes, and nothing is heard. */
  wait(ms: number): this {
    const untilMs = this.nowMs + ms;
    for (let i = 0; i < 20; i += 1) {
      const atMs = deadlineMs(this.state, this.config);
      if (atMs > untilMs) break;
      this.nowMs = Math.max(this.nowMs, atMs);
      this.happen({ type: 'tick' });
    }
    this.nowMs = untilMs;
    return this;
  }
  hello(reads = [1], writes = 1): this {
    return this.says('v2', { type: 'HELLO', v: 1, app: 'a', release: 'r', reads, writes, holds: [] });
  }
  ready(cycles = 250, divergence = 0.01): this {
    return this.hello().says('v2', { type: 'READY', cycles, divergence });
  }
  begun(): this {
    return this.ready()
      .says('v2', { type: 'READY', cycles: 250, divergence: 0 })
      .happen({ type: 'lock', taken: true });
  }
  passed(...resources: Resource[]): this {
    for (const resource of resources) {
      this.says('v1', { type: 'RELEASED', resource, payload: {}, more: false }).says('v2', {
        type: 'GRANTED',
        resource,
      });
    }
    return this;
  }
  /** Everything is V2's. */
  flown(): this {
    return this.begun().passed(...RESOURCES);
  }
  /** What was asked for, in order. */
  get asked(): string[] {
    return this.effects
      .filter((effect) => effect.do !== 'report')
      .map((effect) => {
        if (effect.do === 'send') {
          const { type } = effect.message;
          const resource = 'resource' in effect.message ? ` ${effect.message.resource}` : '';
          const code = 'code' in effect.message ? ` ${effect.message.code}` : '';
          return `${type}${resource}${code} to ${effect.to}`;
        }
        if (effect.do === 'settle') return `settle ${effect.outcome.type}`;
        return 'who' in effect ? `${effect.do} ${effect.who}` : effect.do;
      });
  }
  get reports(): string[] {
    return this.effects.flatMap((effect) => (effect.do === 'report' ? [effect.type] : []));
  }
}

describe('before the switch', () => {
  test('a candidate that cannot take over, or from which there is no way back, is sent away at its first words', () => {
    expect(new Story().hello([2], 1).asked).toContain('REVOKE INCOMPATIBLE_STATE to v2');
    const { asked, state } = new Story().hello([1, 2], 2);
    expect(asked).toEqual(['persist', 'REVOKE NO_WAY_BACK to v2', 'stop v2', 'settle failed']);
    expect(state).toMatchObject({ phase: 'idle', owner: 'v1', speaks: { reads: [1], writes: 1 } });
    expect(new Story().hello([1, 2], 1).state.phase).toBe('warming');
  });

  test('a candidate that is not close enough to the prior, or too early, never gets anything', () => {
    expect(new Story().ready(250, 0.11).asked).toContain('REVOKE DIVERGED to v2');
    expect(new Story().ready(249, 0.01).asked).toContain('REVOKE DIVERGED to v2');
    expect(new Story().ready().asked).toEqual(['persist', 'PREPARE to v2']);
  });

  test('the update lock is asked for last; held, the candidate stands by and is asked again', () => {
    const story = new Story().ready().says('v2', { type: 'READY', cycles: 250, divergence: 0 });
    expect(story.asked).toEqual(['lock']);
    story.happen({ type: 'lock', taken: false });
    expect(story.state.phase).toBe('postponed');
    expect(story.reports).toEqual(['update.postponed']);
    for (let i = 0; i < 3; i += 1) {
      for (let beat = 0; beat < 100; beat += 1) story.wait(10).says('v1', { type: 'SNAP', payload: {} });
      expect(story.state.phase).toBe('ready');
      story
        .says('v2', { type: 'READY', cycles: 250, divergence: 0 })
        .happen({ type: 'lock', taken: i === 2 });
    }
    expect(story.asked).toEqual(['persist', 'RELEASE camera to v1']);
  });

  test('a lock that is never given up ends the update, not the flight', () => {
    const story = new Story({ heartbeatMsMax: 1e9 })
      .ready()
      .says('v2', { type: 'READY', cycles: 250, divergence: 0 });
    story.happen({ type: 'lock', taken: false });
    for (let i = 0; story.state.phase !== 'idle' && i < 2_000; i += 1) {
      story.wait(1_000);
      if (story.asked.includes('settle failed')) break;
      story.says('v2', { type: 'READY', cycles: 250, divergence: 0 });
      if (story.asked.includes('lock')) story.happen({ type: 'lock', taken: false });
    }
    expect(story.asked).toContain('REVOKE LOCKED to v2');
    expect(story.state).toMatchObject({ phase: 'idle', owner: 'v1' });
  });
});

describe('whoever flies falls silent', () => {
  test('with V2 standing by: V1 is fenced, and only then V2 gets the rotors, first of all', () => {
    const story = new Story().ready().wait(LIMITS.heartbeatMsMax - 1);
    expect(story.state.phase).toBe('ready');
    story.wait(1);
    expect(story.asked).toEqual(['fence v1']);
    expect(story.happen({ type: 'dead', who: 'v1' }).asked).toEqual(['GRANT rotors to v2', 'persist']);
    const order: string[] = [];
    for (const resource of [...RESOURCES].reverse())
      order.push(...story.says('v2', { type: 'GRANTED', resource }).asked);
    expect(order.filter((asked) => asked.startsWith('GRANT'))).toEqual([
      'GRANT connections to v2',
      'GRANT listener to v2',
      'GRANT camera to v2',
    ]);
    expect(story.state.phase).toBe('probation');
  });

  test('a heartbeat in time keeps it flying, also while other things pass', () => {
    const story = new Story().begun();
    for (let i = 0; i < 8; i += 1) story.wait(30).says('v1', { type: 'SNAP', payload: {} });
    expect(story.state).toMatchObject({ phase: 'releasing', resource: 'camera' });
    expect(story.wait(LIMITS.heartbeatMsMax).asked).toEqual(['fence v1']);
  });

  test('silence counts from when a heartbeat was made; one that names an earlier or a later time moves nothing', () => {
    const snap = (atMs: number): Words => ({ type: 'SNAP', payload: {}, atUs: atMs * 1000 });
    const silentIn = (story: Story): number => deadlineMs(story.state, story.config) - story.nowMs;
    const story = new Story().ready().wait(20);
    expect(silentIn(story.says('v1', snap(story.nowMs - 5)))).toBe(LIMITS.heartbeatMsMax - 5);
    expect(silentIn(story.says('v1', snap(0)))).toBe(LIMITS.heartbeatMsMax - 5);
    expect(silentIn(story.says('v1', snap(story.nowMs + 1e9)))).toBe(LIMITS.heartbeatMsMax);
  });

  test('in probation: V2 is fenced, V1 gets everything back, rotors first', () => {
    const story = new Story().flown();
    expect(story.asked).toEqual(['persist', 'mirror']);
    expect(story.wait(LIMITS.heartbeatMsMax).asked).toEqual(['fence v2']);
    expect(story.happen({ type: 'dead', who: 'v2' }).asked).toEqual(['GRANT rotors to v1', 'persist']);
  });

  test('in probation with V1 dead it is borne longer, and then the controller is told', () => {
    const story = new Story({ probationMs: 60_000 }).flown().happen({ type: 'dead', who: 'v1' });
    expect(story.wait(LIMITS.aloneSilenceMsMax - 1).state.phase).toBe('probation');
    expect(story.wait(1).asked).toEqual(['fence v2']);
    expect(story.happen({ type: 'dead', who: 'v2' }).asked).toEqual(['failsafe', 'persist', 'settle failed']);
  });
});

describe('while a fence is awaited nobody is listened to', () => {
  const FENCE_MS = 2_000;

  test('V2 fails on the way; V1, which flies, is not held silent for the time that it took', () => {
    const story = new Story().begun();
    story.says('v2', { type: 'FAULT', code: 'BROKEN', text: 'x' }).wait(FENCE_MS);
    story.says('v1', { type: 'RELEASED', resource: 'camera', payload: {}, more: false });
    story.happen({ type: 'dead', who: 'v2' }).wait(LIMITS.aloneSilenceMsMax - 1);
    expect(story.state).toMatchObject({ phase: 'granting', direction: 'handback', fenced: { prior: false } });
    expect(story.wait(1).effects).toContainEqual({ do: 'fence', who: 'v1' });
  });

  test('nor by an agent that comes back for the time that it was away', () => {
    const story = new Story().begun();
    story.nowMs += FENCE_MS;
    story.happen({ type: 'boot', gone: [] }).happen({ type: 'dead', who: 'v2' });
    expect(story.wait(LIMITS.aloneSilenceMsMax - 1).state.phase).toBe('granting');
  });
});

describe('what a fenced giver leaves waits for no disk', () => {
  /** What is in the journal while this happens; the agent dies between the grant and the entry that would tell of it. */
  const lost = (story: Story, event: Happening, gone: string[]): { granted: Effect[]; after: Story } => {
    const journal = story.state;
    const granted = story.happen(event).effects.slice(0, 2);
    const after = new Story();
    after.state = journal;
    return { granted, after: after.happen({ type: 'boot', gone }) };
  };
  const grantOf = (story: Story): number => {
    const grant = story.effects.find((effect) => effect.do === 'send' && effect.message.type === 'GRANT');
    return grant?.do === 'send' ? grant.message.epoch : 0;
  };

  test.each<[string, () => Story, string, string]>([
    ['V1 dies while V2 stands by', () => new Story().ready(), 'v1', 'v2'],
    ['V1 dies with a resource on its way', () => new Story().begun(), 'v1', 'v2'],
    [
      'V2 dies with a resource on its way',
      () =>
        new Story().begun().says('v1', { type: 'RELEASED', resource: 'camera', payload: {}, more: false }),
      'v2',
      'v1',
    ],
    ['V2 dies in its probation', () => new Story().flown(), 'v2', 'v1'],
  ])('%s: a restarted agent grants the same, under a higher epoch', (_what, begin, dies, takes) => {
    const { granted, after } = lost(begin(), { type: 'dead', who: dies }, [dies]);
    expect(granted).toMatchObject([
      { do: 'send', to: takes, message: { type: 'GRANT', from: 'snap' } },
      { do: 'persist' },
    ]);
    const [first] = granted;
    const epoch = first?.do === 'send' ? first.message.epoch : 0;
    expect(after.asked[0]).toBe('persist');
    expect(after.effects).toContainEqual(expect.objectContaining({ do: 'send', to: takes }));
    expect(grantOf(after)).toBeGreaterThan(epoch);
    expect(after.state).toMatchObject({
      phase: 'granting',
      fenced: { [dies === 'v1' ? 'prior' : 'candidate']: true },
    });
  });

  test('nobody was lost: the candidate is sent away as ever, and no epoch is used twice', () => {
    const story = new Story().ready();
    const { epoch } = story.state;
    expect(story.happen({ type: 'boot', gone: [] }).asked).toContain('REVOKE AGENT_RESTARTED to v2');
    expect(story.state).toMatchObject({ phase: 'idle', owner: 'v1', epoch: epoch + 1 });
  });
});

describe('probation', () => {
  const beating = (story: Story, everyMs: number, cyclesEach: number, error: number): Story => {
    for (let i = 1; i < 400 && story.state.phase === 'probation'; i += 1) {
      story.wait(everyMs).says('v2', { type: 'SNAP', payload: {}, cycles: i * cyclesEach, error });
    }
    return story;
  };

  test('a loop that is too slow gives everything back, unfenced, rotors first', () => {
    const slow = beating(new Story({ loopHzMin: 240 }).flown(), 8, 1, 0);
    expect(slow.asked).toEqual(['persist', 'RELEASE rotors to v2']);
    expect(slow.state).toMatchObject({ failure: { code: 'LOOP_TOO_SLOW' } });
    const good = beating(new Story({ loopHzMin: 240 }).flown(), 8, 2, 0);
    expect(good.state.phase).toBe('committed');
  });

  test('a rate is by when its heartbeats were made: those that the agent reads late, many at once, are no slow loop', () => {
    const story = new Story({ loopHzMin: 240 }).flown();
    const startMs = story.nowMs;
    let cycles = 0;
    const beat = (): void => {
      cycles += 1;
      story.says('v2', { type: 'SNAP', payload: {}, cycles, atUs: (startMs + cycles * 4) * 1000 });
    };
    for (let burst = 0; burst < 5; burst += 1) {
      story.wait(4);
      beat();
      // The agent has no core; V2 flies on.
      story.nowMs += 296;
      for (let i = 0; i < 74; i += 1) beat();
    }
    expect(story.state).toMatchObject({ phase: 'probation', failure: null });
  });

  test('so does one that strays from its setpoint, and one that the engine finds unhealthy', () => {
    const astray = beating(new Story({ errorMax: 0.5 }).flown(), 8, 2, 0.6);
    expect(astray.state).toMatchObject({ phase: 'releasing', failure: { code: 'TRACKING_ERROR' } });
    const sick = new Story().flown();
    sick.happen({ type: 'trouble', who: 'v2', failure: { code: 'UNHEALTHY', text: '' } });
    expect(sick.asked).toEqual(['persist', 'RELEASE rotors to v2']);
  });
});

describe('the operator aborts', () => {
  const failure = { code: 'ABORTED', text: 'by the operator' };

  test('while a resource is asked for: it comes, goes back at once, and the rest with it', () => {
    const story = new Story().begun().passed('camera');
    expect(story.state).toMatchObject({ phase: 'releasing', resource: 'listener' });
    expect(story.happen({ type: 'abort', failure }).asked).toEqual([]);
    story.says('v1', { type: 'RELEASED', resource: 'listener', payload: {}, more: false });
    expect(story.asked).toEqual(['persist', 'GRANT listener to v1']);
    expect(story.says('v1', { type: 'GRANTED', resource: 'listener' }).asked).toEqual([
      'persist',
      'RELEASE camera to v2',
    ]);
    story.says('v2', { type: 'RELEASED', resource: 'camera', payload: {}, more: false });
    expect(story.says('v1', { type: 'GRANTED', resource: 'camera' }).asked).toEqual([
      'persist',
      'REVOKE ABORTED to v2',
      'stop v2',
      'settle failed',
    ]);
  });

  test('while V2 takes the rotors: it takes them, and gives them back', () => {
    const story = new Story().begun().passed('camera', 'listener', 'connections');
    story
      .says('v1', { type: 'RELEASED', resource: 'rotors', payload: {}, more: false })
      .happen({ type: 'abort', failure });
    expect(story.says('v2', { type: 'GRANTED', resource: 'rotors' }).asked).toEqual([
      'persist',
      'RELEASE rotors to v2',
    ]);
  });

  test('with the prior dead there is nobody to go back to, and it is said', () => {
    const story = new Story().ready().happen({ type: 'dead', who: 'v1' });
    expect(story.happen({ type: 'abort', failure }).reports).toEqual(['abort.refused']);
  });
});

test('an app that says it holds what is not its is told to close it', () => {
  const story = new Story();
  story.says('v9', { type: 'HELLO', v: 1, app: 'a', release: 'r', reads: [1], writes: 1, holds: ['rotors'] });
  expect(story.asked).toEqual(['DROP rotors to v9', 'REVOKE UNKNOWN_APP to v9']);
});

test('that an app refused an old line of ours is no failure of its', () => {
  const story = new Story().begun().says('v2', { type: 'FAULT', code: 'STALE_EPOCH', text: '' });
  expect(story.state.phase).toBe('releasing');
  expect(story.says('v2', { type: 'FAULT', code: 'CRASHED', text: '' }).asked).toEqual(['fence v2']);
});

test('at a first start nobody is watched who does not exist: a deadline that passed is not asked for again', () => {
  const story = new Story();
  story.state = { phase: 'idle', epoch: 0, owner: null, speaks: null };
  story.happen({ type: 'update', candidate: 'v2', policy: policyOf({}) }).begun();
  expect(story.state).toMatchObject({ phase: 'granting', resource: 'camera', prior: null });
  // It takes its time with the camera, longer than anybody who flies may be silent.
  story.wait(LIMITS.heartbeatMsMax + 1);
  expect(story.state.phase).toBe('granting');
  expect(deadlineMs(story.state, story.config)).toBeGreaterThan(story.nowMs);
});
