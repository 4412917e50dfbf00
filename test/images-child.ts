/** A process of its own that installs one image, to be killed by a test. */
import Docker from 'dockerode';
import { addressOf } from '#agent/engine-calls.ts';
import { createImages } from '#agent/images/index.ts';
import type { Image } from '#fleet/protocol.ts';
import { inFront, quiet } from '#test/images-lab.ts';

interface Order {
  engineUrl: string;
  hubUrl: string;
  directory: string;
  image: Image;
  app: string;
}

process.once('message', async (message) => {
  const { engineUrl, hubUrl, directory, image, app } = message as Order;
  const engine = new Docker(addressOf(engineUrl));
  const images = await createImages({ engine, hubUrl, directory, log: quiet, standBack: inFront });
  let told = false;
  await images.install(image, {
    app,
    signal: new AbortController().signal,
    onProgress(_done, _all, stage) {
      if (stage === 'pull' && !told) process.send?.('pulling');
      told ||= stage === 'pull';
    },
  });
});
