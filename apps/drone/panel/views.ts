/** The camera views of this version, by the kind of their frames. The panel in the browser imports each one's module. */
export const VIEWS = [{ kind: 0, id: 'visible', title: 'Camera', module: '/views/visible.js' }];
