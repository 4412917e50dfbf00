/** Columns of the chunks of a moved file; their order is part of the format (docs/delta-format.md §4.5). */

/** Of its first chunk, after the number of ranges. */
export const PLAN_COLUMNS = ['segments', 'anchors', 'gaps', 'lengths', 'seeks'] as const;
/** Of the chunks that follow, after the number of copied bytes that each speaks of. */
export const DATA_COLUMNS = ['skips', 'fixes', 'same', 'runs', 'bytes'] as const;
/** Of one that tells its differences by words (`words-1`): after 0, the word's bytes, the first word's, and the copied bytes. */
export const WORD_COLUMNS = ['same', 'plane0', 'plane1', 'plane2', 'plane3'] as const;
export const WORD_WIDTHS: readonly number[] = [2, 4];
/**
 * In place of a word's bytes: the columns are those of DATA_COLUMNS, but for the last three, which are one (`inline-1`): an integer and
 * an integer, then the run, as often as needed.
 */
export const INLINE = 1;
export const INLINE_COLUMNS = ['skips', 'fixes', 'differences'] as const;
