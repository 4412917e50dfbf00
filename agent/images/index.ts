/** Brings images onto the engine: see images.ts. */
export { type Blame, type ImageCode, ImageError } from '#agent/images/errors.ts';
export {
  createImages,
  type ImageFetch,
  type Images,
  type ImagesOptions,
  type InstallOptions,
  type Log,
} from '#agent/images/images.ts';
