import { ago, dayAndTime } from "./time";

/** A moment as "3 hours ago"; its date and time are in the tooltip and in the markup. */
export function When({ at }: { at: string }) {
  return (
    <time dateTime={at} title={dayAndTime(at)}>
      {ago(at)}
    </time>
  );
}
