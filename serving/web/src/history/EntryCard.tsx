/** One answer of the history: its photo, and its captions with what can be done to them. */
import { Button, IconButton } from "../ui/controls";
import { Icon } from "../ui/icon";
import { When } from "../ui/when";
import { Ask } from "./Ask";
import { Thumbnail } from "./Thumbnail";
import type { Entry } from "./useHistory";

interface EntryCardProps {
  entry: Entry;
  onCopy: (text: string) => void;
  onFavour: (number: number, favourite: boolean) => void;
  onDrop: () => Promise<void>;
}

export function EntryCard({ entry, onCopy, onFavour, onDrop }: EntryCardProps) {
  return (
    <li>
      <article className="entry" aria-label={`Captions of ${new Date(entry.created_at).toLocaleString("en-GB")}`}>
        <div className="entry-photo">
          {entry.thumbnail ? (
            <Thumbnail id={entry.id} note={entry.note} />
          ) : (
            <Icon name="image" />
          )}
        </div>
        <div className="entry-body">
          <p className="muted small entry-about">
            <When at={entry.created_at} />
            {entry.platform !== "generic" && <span className="chip">{entry.platform}</span>}
            {entry.parent && <span className="chip">Refined</span>}
            {entry.note && (
              <span>
                Note: <bdi>{entry.note}</bdi>
              </span>
            )}
          </p>
          <ol className="kept">
            {entry.captions.map((caption, number) => (
              <li key={number}>
                <p className="kept-text">
                  <bdi>{caption.edited ?? caption.text}</bdi>
                  {caption.edited && <span className="chip">Edited by you</span>}
                  {caption.verdict && <span className="chip">{caption.verdict === "like" ? "Liked" : "Disliked"}</span>}
                </p>
                <div className="kept-actions">
                  <IconButton
                    icon="heart"
                    label={`Favourite: caption ${number + 1}`}
                    pressed={caption.favourite}
                    onClick={() => onFavour(number, !caption.favourite)}
                  />
                  <IconButton icon="copy" label={`Copy caption ${number + 1}`} onClick={() => onCopy(caption.edited ?? caption.text)} />
                </div>
              </li>
            ))}
          </ol>
          <div className="entry-actions">
            <Button onClick={() => (window.location.hash = `#/history/${entry.id}`)}>Open</Button>
            <Ask label="Delete" question="Delete these captions?" yes="Delete" onYes={onDrop} />
          </div>
        </div>
      </article>
    </li>
  );
}
