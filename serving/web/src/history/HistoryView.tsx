/** What was written for this visitor: found again, favoured, copied, opened, deleted. */
import { useState } from "react";

import { access } from "../access/key";
import type { ApiError } from "../api/client";
import { useCell } from "../cell";
import { Button, Field } from "../ui/controls";
import { useCopy } from "../ui/copying";
import { Notice } from "../ui/notice";
import { HREF, useRoute } from "../ui/route";
import { useToast } from "../ui/toast";
import { Ask } from "./Ask";
import { EntryCard } from "./EntryCard";
import { Opened } from "./Opened";
import { useHistory, type Wanted } from "./useHistory";
import "./history.css";

export function HistoryView() {
  const [wanted, setWanted] = useState<Wanted>({ q: "", favourite: false });
  const { entries, error, loading, more, again, favour, drop, clear } = useHistory(wanted);
  const { rest: opened } = useRoute();
  const { wanted: keyWanted } = useCell(access);
  const say = useToast();
  const copy = useCopy();
  const isFiltered = Boolean(wanted.q.trim()) || wanted.favourite;
  const sayWhy = (failure: unknown) => say((failure as ApiError).message);

  return (
    <div className="history-view">
      <header className="view-head">
        <h1>Your captions</h1>
        <p className="muted">Kept for this browser alone, without your photos in full.</p>
      </header>
      <form className="history-filters" role="search" aria-label="Captions" onSubmit={(event) => event.preventDefault()}>
        <Field label="Search captions and notes">
          {(ids) => (
            <input
              {...ids}
              className="input"
              type="search"
              maxLength={200}
              value={wanted.q}
              onChange={(event) => setWanted((before) => ({ ...before, q: event.target.value }))}
            />
          )}
        </Field>
        <label className="check">
          <input
            type="checkbox"
            checked={wanted.favourite}
            onChange={(event) => setWanted((before) => ({ ...before, favourite: event.target.checked }))}
          />
          Only favourites
        </label>
      </form>
      {error && (
        <Notice kind="error" actions={<Button onClick={again}>Try again</Button>}>
          {error.message}
        </Notice>
      )}
      <p className="small muted" role="status">
        {entries?.length === 0 && !error && (isFiltered ? "Nothing of yours passes this search." : "")}
      </p>
      {entries?.length === 0 && !isFiltered && !error && (
        <Notice kind="info">
          Nothing here yet. What is <a href={HREF.caption}>written for your photos</a> is kept here for you.
        </Notice>
      )}
      {entries && (
        <ul className="entries" aria-label="Your captions" aria-busy={loading}>
          {entries.map((entry) => (
            <EntryCard
              key={entry.id}
              entry={entry}
              onCopy={copy}
              onFavour={(number, favourite) => void favour(entry.id, number, favourite).catch(sayWhy)}
              onDrop={() => drop(entry.id).then(() => say("Deleted"), sayWhy)}
            />
          ))}
        </ul>
      )}
      {more && (
        <Button className="show-more" disabled={loading} onClick={more}>
          Show more
        </Button>
      )}
      {entries && entries.length > 0 && !isFiltered && (
        <footer className="history-foot">
          <Ask
            inWords
            label="Delete all"
            question="Delete all your captions, with favourites and feedback?"
            yes="Delete all"
            onYes={() => clear().then(() => say("All your captions are deleted"), sayWhy)}
          />
        </footer>
      )}
      {/* Over the panel that asks for a key nobody could reach it. */}
      {opened && !keyWanted && <Opened key={opened} id={opened} onCopy={copy} onClose={() => (window.location.hash = HREF.history)} />}
    </div>
  );
}
