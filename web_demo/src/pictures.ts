/** Picture files. */

import {fault} from './fault.js';
import type {Picture} from './pixels.js';

/**
 * Decodes a picture file as Python's `read_image` does: the way up that its EXIF orientation
 * says, of an animation the first frame.
 *
 * @param name the file's name, for messages.
 */
export async function readPicture(file: Blob, name: string): Promise<Picture> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(
        file, {premultiplyAlpha: 'none', colorSpaceConversion: 'none'});
  } catch {
    throw fault(name, 'no picture that this browser can read', 'an image file');
  }
  const {width, height} = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', {willReadFrequently: true})!;
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}
