/** `npm run build`: the published package in dist/. */
import { join } from 'node:path';
import { buildPackage } from '#cli/build.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';

buildPackage(join(PACKAGE_ROOT, 'dist'));
