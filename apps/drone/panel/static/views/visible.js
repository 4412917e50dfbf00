/** The visible camera: JPEG frames, decoded by the browser, drawn in order; a newer one overtakes a slow decode. */
export const mount = (picture) => {
  const canvas = picture.appendChild(document.createElement('canvas'));
  const context = canvas.getContext('2d');
  let drawn = -1;
  return async (image, { seq }) => {
    const bitmap = await createImageBitmap(new Blob([image], { type: 'image/jpeg' })).catch(() => null);
    if (bitmap === null) return;
    if (seq > drawn) {
      drawn = seq;
      if (canvas.width !== bitmap.width) canvas.width = bitmap.width;
      if (canvas.height !== bitmap.height) canvas.height = bitmap.height;
      context.drawImage(bitmap, 0, 0);
    }
    bitmap.close();
  };
};
