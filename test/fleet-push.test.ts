/** A push, as the pusher sees it and as a device gets it. Real git, real engine (MIDAIR_TEST_ENGINE), real MQTT. */
import { afterEach, expect, test } from 'vitest';
import { Checkout, Cleanup, Device, getJson, testEngine, testHub } from '#test/fleet-kit.ts';

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

const V1 = { Dockerfile: 'FROM scratch\nCOPY . /app/\nLABEL flies=yes\nCMD ["/app/main"]\n', main: 'one\n' };

test('a push is built, told live, stored, and becomes the target of a device that listens', async () => {
  const hub = await testHub(cleanup, testEngine());
  const device = await Device.connect(cleanup, hub, 'drone-1');
  const checkout = await Checkout.create(cleanup, `${hub.url}/git/hover.git`);
  const commit = await checkout.commit(V1, 'first flight');

  const push = await checkout.push();
  console.log(push.text);
  expect(push.status).toBe(0);
  const target = await device.target(1);
  console.log(JSON.stringify(target, null, 1), commit);
  console.log(await getJson(`${hub.url}/v1/status`));
  await checkout.commit({ main: 'two\n' });
  console.log((await checkout.push()).text);
  console.log(hub.logged);
});
