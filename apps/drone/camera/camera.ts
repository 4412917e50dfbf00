/**
 * The camera as a resource: its frames go to the browsers, and those that could not be sent yet go along with it.
 *
 * Invariant: a frame that was read here is either given to the viewers or part of the release; the next owner of the
 * camera begins with those, before the first that it reads itself.
 */
import { FrameStream, type Grant, type Holder, type JsonObject } from 'midair/handover';
import * as v from 'valibot';
import type { Viewers } from '../panel/viewers.ts';

/** Beside FrameStream's own payload: whole frames in base64, oldest first. */
const passedSchema = v.fallback(v.array(v.pipe(v.string(), v.base64())), []);

export const createCamera = (viewers: Viewers, log: (text: string) => void): Holder => {
  const stream = new FrameStream({
    onFrame: (frame) => viewers.frame(frame),
    onEnd: (error) => log(`the camera ended${error === undefined ? '' : `: ${error.message}`}`),
  });
  return {
    async release() {
      const { payload } = await stream.release();
      const frames = viewers.takeWaiting().map((frame) => frame.toString('base64'));
      return { payload: { ...payload, frames } };
    },
    grant(grant) {
      const passed = v.parse(passedSchema, grant.payload?.frames);
      for (const frame of passed) viewers.frame(Buffer.from(frame, 'base64'));
      return stream.grant(grant as Grant<JsonObject & { leftover: string }>);
    },
    rehearse: () => stream.rehearse(),
    drop: () => stream.drop(),
    descriptors: () => stream.descriptors(),
  };
};
