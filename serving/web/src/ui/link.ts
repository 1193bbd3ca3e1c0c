/** The address if it is an ordinary web link, else null: addresses come from feeds. */
export function webLink(address: string | null | undefined): string | null {
  return address && /^https?:\/\//i.test(address) ? address : null;
}
