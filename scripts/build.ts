/** `npm run build [-- --image]`: the published package in dist/; with `--image` its dependencies too (Dockerfile.template). */
import { join } from 'node:path';
import { addDependencies, buildPackage } from '#cli/build.ts';
import { PACKAGE_ROOT } from '#cli/paths.ts';

const directory = join(PACKAGE_ROOT, 'dist');
buildPackage(directory);
if (process.argv.includes('--image')) addDependencies(directory);
