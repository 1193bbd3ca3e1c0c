/** A photo as it is sent: checked, and made smaller where it is far larger than the model looks at. */
import { ApiError } from "../api/client";

export interface Photo {
  name: string;
  blob: Blob;
  /** A blob: address to show it by, good until {@link forget}. */
  url: string;
}

/** What the server reads. HEIC is none of them, but a browser that can show it can turn it into JPEG. */
export const ACCEPTED = "image/jpeg,image/png,image/webp,image/gif,image/avif,image/heic,image/heif,.heic,.heif";

const SENT_AS_IS = /^image\/(jpeg|png|webp|gif|avif)$/;
const MAX_BYTES = 20 * 2 ** 20;
/** From this size on a phone's line is slower than making the photo smaller. */
const SHRINK_FROM_BYTES = 3 * 2 ** 20;
/** The model sees about a megapixel; this leaves room for other settings. */
const LONGEST_SIDE = 2048;

/** @throws ApiError saying what is wrong with the file and what to do. */
export async function preparePhoto(file: Blob, name: string): Promise<Photo> {
  if (file.size === 0) throw refused("This file is empty. Choose another one.");
  const heic = /^image\/hei[cf]/.test(file.type) || /\.hei[cf]$/i.test(name);
  if (!heic && !SENT_AS_IS.test(file.type)) {
    throw refused("This is no photo that can be used. Choose a JPEG, PNG, WebP, GIF or AVIF file.");
  }
  if (heic || file.size > SHRINK_FROM_BYTES) {
    const smaller = await asJpeg(file).catch(() => null);
    if (smaller) return photo(smaller, name);
    if (heic) {
      throw refused("This browser can't read HEIC photos. Save it as JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible) and choose it again.");
    }
    if (file.size > MAX_BYTES) throw refused("This photo is larger than 20 MB. Save it smaller and choose it again.");
  }
  return photo(file, name);
}

export function forget(photo: Photo): void {
  URL.revokeObjectURL(photo.url);
}

/** The bytes in base64. */
export function base64(blob: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => {
      const url = reader.result as string; // data:image/jpeg;base64,…
      resolve(url.slice(url.indexOf(",") + 1));
    };
    reader.onerror = () => reject(refused("The photo can't be read any more. Choose it again."));
    reader.readAsDataURL(blob);
  });
}

function photo(blob: Blob, name: string): Photo {
  return { name, blob, url: URL.createObjectURL(blob) };
}

function refused(message: string): ApiError {
  return new ApiError("invalid_image", message);
}

async function asJpeg(file: Blob): Promise<Blob> {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  if (!context) throw new Error("no canvas");
  context.fillStyle = "white"; // behind what is transparent, as the server does
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve, reject) =>
    canvas.toBlob((made) => (made ? resolve(made) : reject(new Error("not encoded"))), "image/jpeg", 0.9),
  );
}
