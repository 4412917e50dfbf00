/** Broken on purpose: joins, but its warm-up never comes to an end. */
export const shadow = (): Promise<never> => new Promise(() => {});
export const follow = (): void => {};
